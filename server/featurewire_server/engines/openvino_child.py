"""Takes an artifact apart in a process of its own, for a server that answers meanwhile.

Parsing a graph of hundreds of megabytes holds the interpreter's lock for a third of a second at a
time, and leaves the heap in pieces. A child process does it at a lower priority. It hands over a
folder: the network as OpenVINO's IR, which is mapped rather than read, and the small rest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import internal, resource_exhausted
from .engine import Split, Unsuitable

if TYPE_CHECKING:
    from .openvino_graph import Halves

NICE = 10
"""A tenth of what a thread that answers gets, where both want a processor."""

NETWORK = "network.xml"
_REST = "rest.json"


def take_apart(path: Path, tags: tuple[str, ...], split: Split, folder: Path) -> Halves:
    """As `engine_openvino_graph.take_apart`, but with the network in `folder`/NETWORK."""
    from .openvino_graph import Halves

    task = {"path": str(path), "tags": tags, "split": vars(split), "folder": str(folder)}
    child = subprocess.Popen(
        [sys.executable, "-m", __name__, json.dumps(task)],
        stdin=subprocess.PIPE,  # its end tells the child that nobody waits any more
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        output, _ = child.stdout.read(), child.wait()
    finally:
        child.stdin.close()
        child.stdout.close()
    if child.returncode < 0:
        raise resource_exhausted(
            f"Could not load {path}: the process that reads its graph was ended by signal "
            f"{-child.returncode}; is there memory for a second version?"
        )
    if child.returncode or not output:
        raise internal(
            f"Could not load {path}: the process that reads its graph ended with status "
            f"{child.returncode}"
        )
    answer = json.loads(output)
    if "error" in answer:
        raise internal(f"Could not load {path}: {answer['error']}")
    if "unsuitable" in answer:
        raise Unsuitable(answer["unsuitable"])
    return Halves.unpack(json.loads((folder / _REST).read_text()))


def _main(task: dict[str, Any]) -> dict[str, Any]:
    from .libraries import import_openvino, import_tensorflow

    import_tensorflow()
    ov = import_openvino()
    from . import openvino_graph as engine_openvino_graph
    from . import openvino_network as engine_openvino_network

    folder = Path(task["folder"])
    try:
        halves = engine_openvino_graph.take_apart(
            Path(task["path"]), task["tags"], Split(**task["split"])
        )
        model = engine_openvino_network.read(ov.Core(), halves.network)
    except Unsuitable as reason:
        return {"unsuitable": str(reason)}
    ov.save_model(model, folder / NETWORK, compress_to_fp16=False)
    (folder / _REST).write_text(json.dumps(halves.pack()))
    return {}


def _end_with_the_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    os.nice(NICE)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        answer = _main(json.loads(sys.argv[1]))
    except Exception as failure:  # the server says it in its log and status
        answer = {"error": " ".join(f"{type(failure).__name__}: {failure}".split())}
    print(json.dumps(answer), flush=True)
    os._exit(0)
