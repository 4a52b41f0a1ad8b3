"""A module, exported and served on this machine, for `make demo` and `make search`.

Runs the commands that a user would run, from the same serving_config/ files that TensorFlow Serving
gets, and stops the server that it started. Only the exported model stays, under build/models/.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import featurewire

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "build" / "models"
SERVING_CONFIG = ROOT / "serving_config"
FEATUREWIRE = Path(sys.executable).with_name("featurewire")
MODEL = "inception_resnet_v2"
HUB = "https://tfhub.dev/google/imagenet/inception_resnet_v2/feature_vector/1"
HUB_SECONDS = 6.0
READY_TIMEOUT = 180.0  # seconds
STOP_TIMEOUT = 30.0


class StackError(Exception):
    """Something a user can act on: one line."""


def say(text: str) -> None:
    print(text, flush=True)


def end_as_by_ctrl_c() -> None:
    """Let SIGTERM, too, stop what was started."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def shown(arguments: list[str]) -> list[str]:
    """Print a command as a user would type it, and return it ready to run."""
    text = shlex.join(["featurewire", *arguments]).replace(f"{ROOT}/", "")
    say(f"$ {text}")
    return [str(FEATUREWIRE), *arguments]


def base_path_of(module: str) -> Path:
    """Where this module's versions go: one folder a module, so that none stands in for another."""
    if module == "stand-in":
        return MODELS / "stand-in"
    words = re.sub(r"\W+", "_", module.split("://")[-1]).strip("_")[-40:]
    return MODELS / f"{words}_{hashlib.sha256(module.encode()).hexdigest()[:8]}"


def has_version(base_path: Path) -> bool:
    return any(entry.is_dir() for entry in base_path.glob("[0-9]*"))


def trouble_with_hub(handle: str = HUB, seconds: float = HUB_SECONDS) -> str | None:
    """Why `handle` cannot be fetched from here, or None if it can; decided within `seconds`."""
    answer: list[str | None] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(f"{handle}?tf-hub-format=compressed")
            with urllib.request.urlopen(request, timeout=seconds) as reply:
                is_archive = reply.read(2) == b"\x1f\x8b"
            answer.append(None if is_archive else "it answers with something else than a module")
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            answer.append(str(reason))

    # On a thread: looking up a name can take longer than any timeout of a socket.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return answer[0] if answer else f"no answer within {seconds:.0f} s"


def prepared(module: str) -> Path:
    """The base path of `module`, exported if it is not there.

    `auto` is the real module where it can be had, else the stand-in.
    """
    if module != "auto":
        return exported(module)
    if has_version(base_path_of(HUB)):
        return exported(HUB)
    say(f"Asking the hub for the module, {HUB_SECONDS:.0f} s at most: {HUB}")
    trouble = trouble_with_hub()
    if trouble is None:
        try:
            return exported(HUB)
        except StackError as error:
            trouble = str(error)
    say(f"The hub gives no module ({trouble}), so this run takes the stand-in: random weights.")
    return exported("stand-in")


def exported(module: str) -> Path:
    """Export `module` unless a version of it is there; returns the base path."""
    base_path = base_path_of(module)
    if has_version(base_path):
        say(f"Using the version that is already in {base_path.relative_to(ROOT)}.")
        return base_path
    if subprocess.run(shown(["export", module, str(base_path)])).returncode:
        raise StackError(f"the export of {module} failed; its message is above")
    return base_path


def configs(base_path: Path, folder: Path) -> Path:
    """Copy serving_config/models.config with this machine's base path in place of the volume's."""
    text = (SERVING_CONFIG / "models.config").read_text()
    here = text.replace(f'"/models/{MODEL}"', f'"{base_path}"')
    if here == text:
        raise StackError(f"serving_config/models.config names no base path /models/{MODEL}")
    target = folder / "models.config"
    target.write_text(here)
    return target


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(base_path: Path, *flags: str) -> Iterator[str]:
    """Run `featurewire serve` on a free port, with further flags; yields its address, stops it."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="featurewire-") as scratch:
        log = Path(scratch) / "server.log"
        command = shown(
            [
                "serve",
                f"--port={port}",
                f"--model_config_file={configs(base_path, Path(scratch))}",
                "--enable_batching",
                f"--batching_parameters_file={SERVING_CONFIG / 'batching.config'}",
                "--enable_per_model_batching_parameters",
                f"--monitoring_config_file={SERVING_CONFIG / 'monitoring.config'}",
                *flags,
            ]
        )
        with log.open("wb") as output:
            server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_until_open(port, server, log)
            yield f"127.0.0.1:{port}"
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def wait_until_open(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for the port, and show what the server says of its loading."""
    deadline = time.monotonic() + READY_TIMEOUT
    told = 0
    while time.monotonic() < deadline:
        is_open = accepts(port)
        lines = log.read_text(errors="replace").splitlines()
        for line in lines[told:]:
            if found := re.search(r" I featurewire_server\.models\.\w+: (.*)", line):
                say(f"  {found[1]}")
        told = len(lines)
        if is_open:
            return
        if server.poll() is not None:
            last = lines[-1] if lines else "no output"
            raise StackError(f"the server ended with status {server.returncode}: {last}")
        time.sleep(0.1)
    raise StackError(f"the server did not open its port within {READY_TIMEOUT:.0f} s")


def accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def is_stand_in(client: featurewire.Client) -> bool:
    manifest = client.metadata().manifest or {}
    return bool(manifest.get("module", {}).get("stand_in"))
