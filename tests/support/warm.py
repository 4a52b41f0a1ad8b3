"""Start Python programs from a process that has already imported the heavy libraries.

`start` and `run` are like `subprocess.Popen` and `subprocess.run` with `python` as the program. In
a test run, programs are forked from a server that all workers share (`fork_server.py`), in a few
milliseconds instead of seconds. Elsewhere, as in the benchmarks, they are started with `python`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

from tests.support.fork_server import HEADER

ROOT = Path(__file__).resolve().parents[2]

START_SECONDS = 180.0
"""How long the server may take for its imports, on a busy machine."""

END_SECONDS = 30.0
"""Time for the server and its programs to end after the run."""

FIXED_AT_START = ("LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONHASHSEED", "PYTHONWARNINGS")
"""Variables that only affect a new interpreter; a program with another value is not forked."""

LONGEST_FOLDER = 80
"""Maximum length of a folder's path in bytes, so that a UNIX socket in it fits into 108 bytes."""

Arguments = Sequence[str | bytes | os.PathLike[str]]


@dataclass(frozen=True)
class Imports:
    """The imports of a fork server."""

    name: str
    modules: tuple[str, ...]
    """Modules to import; `name.*` is a package with all of its modules."""


TENSORFLOW = Imports(
    "tensorflow",
    (
        "featurewire.*",
        "featurewire_exporter.commands",
        "featurewire_exporter.inspect",
        "featurewire_exporter.verify",
        "featurewire_exporter.export",
        "featurewire_server.process",
        "featurewire_server.engines.tensorflow",
        "grpc_health.v1.health",
        "grpc_reflection.v1alpha.reflection",
        "openvino",
    ),
)
"""Imports for the exporter and the server."""

CLIENT = Imports(
    "client",
    ("featurewire.*", "featurewire_rollout.*"),
)
"""Imports for commands without TensorFlow."""


@dataclass
class _Run:
    """The test run of this process."""

    folder: Path | None = None
    """Folder of the servers' sockets; None: start programs with `python`."""
    users: dict[str, socket.socket] = field(default_factory=dict)
    """Connections that keep the servers alive, by the socket's name."""
    launched: list[subprocess.Popen[bytes]] = field(default_factory=list)
    """Servers started by this process."""
    cpu_seconds: float = 0.0
    """CPU time of the forked programs that have ended."""


_run = _Run()


def use_fork_servers(folder: Path) -> None:
    """Fork further programs from the servers of the test run with this folder."""
    _run.folder = folder if len(os.fsencode(folder)) < LONGEST_FOLDER else None


def folder_of_fork_servers() -> Path | None:
    """The argument of `use_fork_servers`, for another process of the run."""
    return _run.folder


def leave_fork_servers() -> None:
    """Disconnect, so that the servers end when all processes of the run have done this.

    The process that has started them waits for that, but not long.
    """
    for connection in _run.users.values():
        connection.close()
    _run.users.clear()
    _run.folder = None
    for server in _run.launched:
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(END_SECONDS)


def cpu_seconds() -> float:
    """CPU time of the forked programs that this process has waited for."""
    return _run.cpu_seconds


def start(
    arguments: Arguments,
    *,
    imports: Imports = TENSORFLOW,
    python: str = sys.executable,
    new_interpreter: bool = False,
    whole_run: bool = False,
    **options: Any,
) -> subprocess.Popen[Any] | WarmProcess:
    """Start `python ARGUMENTS`: `-m MODULE …`, `-c CODE …` or `FILE …`.

    `new_interpreter`: start `python` itself, even in a test run.
    `whole_run`: a forked program runs until the test run ends, even after this process.

    `options`: `stdin`, `stdout`, `stderr`, `env`, `cwd`, `text` and `start_new_session` of
    `subprocess.Popen`.
    """
    environment = options.get("env") or os.environ
    cold = new_interpreter or _run.folder is None
    if cold or any(environment.get(name) != os.environ.get(name) for name in FIXED_AT_START):
        return subprocess.Popen([python, *arguments], **options)
    return WarmProcess(_server(python, imports), arguments, whole_run=whole_run, **options)


def run(
    arguments: Arguments,
    *,
    input: Any = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run `python ARGUMENTS` to the end, like `subprocess.run`."""
    if input is not None:
        options["stdin"] = subprocess.PIPE
    if capture_output:
        options["stdout"] = options["stderr"] = subprocess.PIPE
    with start(arguments, **options) as process:
        try:
            output, errors = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    ended = subprocess.CompletedProcess(process.args, process.returncode, output, errors)
    if check:
        ended.check_returncode()
    return ended


class WarmProcess:
    """A forked program, with the attributes and methods of `subprocess.Popen`."""

    def __init__(
        self,
        server: Path,
        arguments: Arguments,
        *,
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        text: bool = False,
        start_new_session: bool = False,
        whole_run: bool = False,
    ) -> None:
        self.args = [os.fsdecode(argument) for argument in arguments]
        self.returncode: int | None = None
        self._lock = threading.Lock()
        self.stdin: IO[Any] | None = None
        self.stdout: IO[Any] | None = None
        self.stderr: IO[Any] | None = None
        request = {
            "arguments": self.args,
            "environment": dict(os.environ if env is None else env),
            "folder": os.path.abspath(cwd or "."),
            "new_session": start_new_session,
            "whole_run": whole_run,
        }
        with contextlib.ExitStack() as stack:

            def theirs(number: int, given: int | IO[Any] | None) -> int:
                """The program's descriptor of a stream."""
                if given is None:
                    return number
                if given == subprocess.DEVNULL:
                    opened = os.open(os.devnull, os.O_RDWR)
                elif given == subprocess.PIPE:
                    reader, writer = os.pipe()
                    opened, ours = (reader, writer) if number == 0 else (writer, reader)
                    file = os.fdopen(ours, ("w" if number == 0 else "r") + ("" if text else "b"))
                    setattr(self, ("stdin", "stdout", "stderr")[number], file)
                else:
                    return given if isinstance(given, int) else given.fileno()
                stack.callback(os.close, opened)
                return opened

            streams = [theirs(0, stdin), theirs(1, stdout)]
            streams.append(streams[1] if stderr == subprocess.STDOUT else theirs(2, stderr))
            self._connection = _connect(server)
            _send(self._connection, request, streams)
            answer, (self._pidfd,), _, _ = socket.recv_fds(self._connection, 32, 1)
        self.pid = int(answer)

    def poll(self) -> int | None:
        """The exit status, or None if the program is running."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; returns the exit status."""
        if self._look(timeout) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        assert self.returncode is not None
        return self.returncode

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._connection, selectors.EVENT_READ)
                if not selector.select(timeout):
                    return None
            with self._lock:
                self._take_status()
        return self.returncode

    def _take_status(self) -> None:
        if self.returncode is not None:
            return  # another thread was faster
        content = self._connection.recv(1024)
        # No answer means that the server was killed, and its programs with it.
        lost = {"status": -9, "cpu_seconds": 0.0}
        ended: dict[str, Any] = json.loads(content) if content else lost
        _run.cpu_seconds += ended["cpu_seconds"]
        self.returncode = ended["status"]
        self._connection.close()
        os.close(self._pidfd)

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """Write `input`, read both outputs to the end, and wait."""
        deadline = None if timeout is None else time.monotonic() + timeout
        output: dict[str, Any] = {}

        def read(name: str) -> None:
            with contextlib.suppress(ValueError), getattr(self, name) as stream:  # closed already
                output[name] = stream.read()

        def write() -> None:
            assert self.stdin is not None
            with contextlib.suppress(BrokenPipeError, ValueError), self.stdin:
                if input:
                    self.stdin.write(input)

        readers = [
            threading.Thread(target=read, args=[name], daemon=True)
            for name in ("stdout", "stderr")
            if getattr(self, name) is not None
        ]
        writers = [threading.Thread(target=write, daemon=True)] if self.stdin is not None else []
        for thread in [*readers, *writers]:
            thread.start()
        for thread in readers:
            thread.join(None if deadline is None else max(deadline - time.monotonic(), 0))
            if thread.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        self.wait(None if deadline is None else max(deadline - time.monotonic(), 0))
        return output.get("stdout"), output.get("stderr")

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> WarmProcess:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self.stdout, self.stderr, self.stdin):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self.wait()


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection


def _send(connection: socket.socket, request: Any, streams: Sequence[int]) -> None:
    content = json.dumps(request).encode()
    message = HEADER.pack(len(content)) + content
    sent = socket.send_fds(connection, [message], streams) if streams else 0
    connection.sendall(message[sent:])


def _server(python: str, imports: Imports) -> Path:
    """The socket of the fork server; the first process that asks starts it."""
    assert _run.folder is not None
    digest = hashlib.sha256(python.encode()).hexdigest()[:8]
    path = _run.folder / f"fork-{imports.name}-{digest}"
    if path.name not in _run.users:
        with FileLock(f"{path}.lock"):
            _run.users[path.name] = _use(path) or _launch(path, python, imports)
    return path


def _use(path: Path) -> socket.socket | None:
    """A connection that keeps the server alive; None if there is none, or if it is ending."""
    with contextlib.suppress(OSError):
        connection = _connect(path)
        connection.settimeout(START_SECONDS)
        _send(connection, "use", [])
        if connection.recv(16) == b"ready\n":
            connection.settimeout(None)
            return connection
        connection.close()
    return None


def _launch(path: Path, python: str, imports: Imports) -> socket.socket:
    path.unlink(missing_ok=True)
    log = path.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python, "-m", "tests.support.fork_server", path, *imports.modules],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # OpenBLAS starts threads during the import of numpy, unless it is limited to one.
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"},
        )
    _run.launched.append(process)
    while process.poll() is None:
        if path.exists() and (connection := _use(path)):
            return connection
        time.sleep(0.05)
    raise AssertionError(f"the fork server has ended:\n{log.read_text()[-2000:]}")
