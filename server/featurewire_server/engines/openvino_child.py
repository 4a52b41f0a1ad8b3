"""Splits an artifact's graph in a child process, so that the server can go on answering calls.

Parsing a graph of hundreds of megabytes holds the GIL for up to a third of a second and fragments
the heap. So a child process parses the graph at a lower priority. The child writes the network to
a file in OpenVINO's IR format, which the server maps into memory, and the small remaining graph to
its standard output.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from featurewire.manifest.network import Split
from featurewire_server.common.errors import internal, resource_exhausted
from featurewire_server.engines.engine import Unsuitable

if TYPE_CHECKING:
    from featurewire_server.engines.openvino_graph import Halves

NICE = 10
"""The child gets a tenth of the time of an answering thread if both compete for a core."""

NETWORK = "network.xml"


def take_apart(path: Path, tags: tuple[str, ...], split: Split, folder: Path) -> Halves:
    """Like `openvino_graph.take_apart`, but the network is the file `folder`/NETWORK."""
    child = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,  # stays open; the child exits when it closes
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,  # else closing would write to a child that may have ended
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdin, child.stdout:
        with contextlib.suppress(BrokenPipeError):  # the child has ended; the exit status says why
            pickle.dump((path, tags, split, folder), child.stdin)
        output, status = child.stdout.read(), child.wait()
    if status < 0:
        raise resource_exhausted(
            f"Could not load {path}: the process that reads its graph was killed by signal "
            f"{-status}; check that there is memory for a second version"
        )
    if status or not output:
        raise internal(
            f"Could not load {path}: the process that reads its graph ended with status {status}"
        )
    answer = pickle.loads(output)
    if isinstance(answer, Unsuitable):
        raise answer
    if isinstance(answer, str):
        raise internal(f"Could not load {path}: {answer}")
    halves: Halves = answer
    return halves


def _take_apart(path: Path, tags: tuple[str, ...], split: Split, folder: Path) -> Halves:
    from featurewire_server.engines.libraries import import_openvino, import_tensorflow

    import_tensorflow()
    ov = import_openvino()
    from featurewire_server.engines import openvino_graph, openvino_network

    halves = openvino_graph.take_apart(path, tags, split)
    model = openvino_network.read(halves.network)
    ov.save_model(model, folder / NETWORK, compress_to_fp16=False)
    halves.network = b""
    return halves


def _end_with_the_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _main() -> None:
    if sys.platform != "win32":
        os.nice(NICE)
    task = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        answer: Halves | Unsuitable | str = _take_apart(*task)
    except Unsuitable as error:
        answer = error
    except Exception as error:  # the server logs it and shows it as the status
        answer = " ".join(f"{type(error).__name__}: {error}".split())
    pickle.dump(answer, sys.stdout.buffer)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    _main()
