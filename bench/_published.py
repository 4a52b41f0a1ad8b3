"""A published model and an embedded server for benchmarks."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BATCHING = ROOT / "serving_config" / "batching.config"
START_SECONDS = 120.0
STAND_IN = ROOT / "build" / "models" / "stand-in"


def published(scratch: Path) -> Path:
    """The base path of the stand-in, from `make demo` or newly exported into `scratch`."""
    if any(entry.name.isdigit() for entry in (STAND_IN.iterdir() if STAND_IN.is_dir() else ())):
        return STAND_IN
    base_path = scratch / "inception_resnet_v2"
    subprocess.run(
        [sys.executable, "-m", "featurewire_exporter", "export", "stand-in", base_path],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return base_path


@contextlib.contextmanager
def serving(base_path: Path, model: str, *flags: str) -> Iterator[str]:
    """Run `featurewire serve` with batching on free loopback ports; yields its gRPC address."""
    port = free_port()
    command = [
        *("-m", "featurewire_server", f"--port={port}", f"--model_name={model}"),
        *(f"--model_base_path={base_path.absolute()}", f"--rest_api_port={free_port()}"),
        *("--enable_batching", f"--batching_parameters_file={BATCHING}", *flags),
    ]
    with running(command, port):
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def running(
    arguments: Sequence[str | Path], port: int, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python process, wait until it listens on a loopback port, and stop it at the end.

    Raises RuntimeError with the end of its output if it does not listen in time.
    """
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"} | dict(environment or {}),
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _listens(port):
                if server.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"no server: {log.read()[-500:].decode(errors='replace')}")
                time.sleep(0.1)
            yield server
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
            # Workers may outlive their server, so kill its whole process group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)


@contextlib.contextmanager
def standing_still(servers: Collection[int]) -> Iterator[None]:
    """Stop these processes of `running`, and their children, until the context ends."""
    for pid in servers:
        os.killpg(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in servers:
            os.killpg(pid, signal.SIGCONT)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
