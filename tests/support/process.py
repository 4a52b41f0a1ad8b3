"""Start a real server process on loopback, wait until it answers, and stop it by its pid."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support import warm

START_TIMEOUT = 180.0  # seconds; about ten on an idle machine
STOP_TIMEOUT = 60.0


def free_port() -> int:
    """A TCP port that is probably free on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(
    port: int, process: subprocess.Popen[Any] | warm.WarmProcess | None, timeout: float
) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise AssertionError(f"the server ended with status {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port} after {timeout} s")


def all_versions(folder: Path, name: str, base_path: Path, labels: str = "") -> Path:
    """Write a config file for all versions of one model; `labels` is in text format."""
    config = folder / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "{name}" base_path: "{base_path}" '
        f'model_platform: "tensorflow" model_version_policy {{ all {{}} }} {labels} }} }}'
    )
    return config


class ServerProcess:
    """Start `python -m featurewire_server` with these flags; its output goes to `log`.

    In a test run it is forked from a process that has imported TensorFlow; with `new_interpreter`
    it is a new `python` process. With `whole_run` a forked server runs until the test run ends.
    """

    def __init__(
        self,
        *flags: str,
        log: Path,
        port: int | None = None,
        environment: dict[str, str] | None = None,
        python: str = sys.executable,
        new_interpreter: bool = False,
        whole_run: bool = False,
    ) -> None:
        self.port = port or free_port()
        self.target = f"127.0.0.1:{self.port}"
        self.log = log
        self._flags = flags
        self._environment = environment or os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"}
        self._python = python
        self._new_interpreter = new_interpreter
        self._whole_run = whole_run
        self.process: subprocess.Popen[Any] | warm.WarmProcess | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> ServerProcess:
        """Start it, after `kill` on the same port again, and wait until the port opens."""
        with self.log.open("ab") as log:
            self.process = warm.start(
                ["-m", "featurewire_server", f"--port={self.port}", *self._flags],
                python=self._python,
                new_interpreter=self._new_interpreter,
                whole_run=self._whole_run,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
            )
        try:
            wait_for_port(self.port, self.process, START_TIMEOUT)
        except AssertionError as error:
            self.stop()
            raise AssertionError(f"{error}:\n{self.log.read_text()[-2000:]}") from None
        return self

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(STOP_TIMEOUT)

    def stop(self) -> int:
        """Send SIGTERM, then SIGKILL if it does not end; returns the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait(STOP_TIMEOUT)


@contextlib.contextmanager
def serving(
    base_path: Path, *flags: str, log: Path, model: str = "tiny"
) -> Iterator[ServerProcess]:
    """Run a server of one model, and stop it at the end."""
    server = ServerProcess(
        f"--model_name={model}", f"--model_base_path={base_path}", *flags, log=log
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()
