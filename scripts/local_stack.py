"""Exports and serves a module on this machine, for `make demo` and `make search`.

Runs the same commands as a user, with the files of serving_config/, and stops the server at the
end. Only the exported model stays, under build/models/.
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
    """A problem for the user to fix, in one line."""


def say(text: str) -> None:
    print(text, flush=True)


def end_as_by_ctrl_c() -> None:
    """Treat SIGTERM like Ctrl-C, so that it also stops the server."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def shown(arguments: list[str]) -> list[str]:
    """Print a command as a user would type it, and return its arguments for subprocess."""
    text = shlex.join(["featurewire", *arguments]).replace(f"{ROOT}/", "")
    say(f"$ {text}")
    return [str(FEATUREWIRE), *arguments]


def base_path_of(module: str) -> Path:
    """The folder of this module's versions. Each module has its own, so that none is mixed up."""
    if module == "stand-in":
        return MODELS / "stand-in"
    words = re.sub(r"\W+", "_", module.split("://")[-1]).strip("_")[-40:]
    return MODELS / f"{words}_{hashlib.sha256(module.encode()).hexdigest()[:8]}"


def has_version(base_path: Path) -> bool:
    return any(entry.is_dir() for entry in base_path.glob("[0-9]*"))


def trouble_with_hub(handle: str = HUB, seconds: float = HUB_SECONDS) -> str | None:
    """Why `handle` cannot be fetched, or None if it can; answers within `seconds`."""
    answer: list[str | None] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(f"{handle}?tf-hub-format=compressed")
            with urllib.request.urlopen(request, timeout=seconds) as reply:
                is_archive = reply.read(2) == b"\x1f\x8b"
            answer.append(None if is_archive else "its answer is not a module")
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            answer.append(str(reason))

    # Use a thread, because a DNS lookup ignores the timeout of a socket.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return answer[0] if answer else f"no answer within {seconds:.0f} s"


def prepared(module: str) -> Path:
    """The base path of `module`, exporting it first if necessary.

    `auto` is the real module if the hub is reachable, else the stand-in.
    """
    if module != "auto":
        return exported(module)
    if has_version(base_path_of(HUB)):
        return exported(HUB)
    say(f"Asking the hub for the module, for up to {HUB_SECONDS:.0f} s: {HUB}")
    trouble = trouble_with_hub()
    if trouble is None:
        try:
            return exported(HUB)
        except StackError as error:
            trouble = str(error)
    say(f"The hub is not available ({trouble}), so this run uses the stand-in with random weights.")
    return exported("stand-in")


def exported(module: str) -> Path:
    """Export `module` unless a version of it exists; returns the base path."""
    base_path = base_path_of(module)
    if has_version(base_path):
        say(f"Using the version that is already in {base_path.relative_to(ROOT)}.")
        return base_path
    if subprocess.run(shown(["export", module, str(base_path)])).returncode:
        raise StackError(f"the export of {module} failed; its message is above")
    return base_path


def configs(base_path: Path, folder: Path) -> Path:
    """Copy serving_config/models.config, with a local base path instead of the volume's."""
    text = (SERVING_CONFIG / "models.config").read_text()
    here = text.replace(f'"/models/{MODEL}"', f'"{base_path}"')
    if here == text:
        raise StackError(f"serving_config/models.config does not have the path /models/{MODEL}")
    target = folder / "models.config"
    target.write_text(here)
    return target


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(base_path: Path, *flags: str) -> Iterator[str]:
    """Run `featurewire serve` on a free port, with these flags; yields its address."""
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
    """Wait for the port to open, and show the server's progress messages."""
    deadline = time.monotonic() + READY_TIMEOUT
    shown_lines = 0
    while time.monotonic() < deadline:
        is_open = accepts(port)
        lines = log.read_text(errors="replace").splitlines()
        for line in lines[shown_lines:]:
            if found := re.search(r" I featurewire_server\.models\.\w+: (.*)", line):
                say(f"  {found[1]}")
        shown_lines = len(lines)
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
