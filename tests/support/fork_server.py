"""A process that imports the heavy libraries once and forks Python programs.

`import tensorflow` takes five CPU seconds; a fork takes a few milliseconds. The process has one
thread and has never used the imported libraries, so a child behaves like a new interpreter: it has
its own process id, streams, environment and working directory, ends like `python`, and can be
stopped with any signal.

    python -m tests.support.fork_server SOCKET MODULE... (PACKAGE.* imports all of its modules)

Each connection to the UNIX socket SOCKET starts one program; `warm.py` is the other end. A program
ends with the process that started it or, if it is for the whole run, with the last user. When its
last user has disconnected, this process ends too; no program outlives it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEADER = struct.Struct("!I")
"""Length of the JSON document that follows."""

FIRST_USER_SECONDS = 120.0
"""How long to wait for the first user, the process that started this one."""

REQUEST_SECONDS = 60.0

STOP_SECONDS = 20.0
"""Time for a program of the whole run to end after SIGTERM."""

SET_PARENT_DEATH_SIGNAL = 1
"""`PR_SET_PDEATHSIG` of prctl(2)."""

PEER_CREDENTIALS = (socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
"""Process, user and group of the other end, as returned by SO_PEERCRED."""


@dataclass(frozen=True)
class Program:
    """A Python program to start, like the arguments of `execve`."""

    arguments: list[str]
    """Arguments of `python`: `-m MODULE …`, `-c CODE …` or `FILE …`."""
    environment: dict[str, str]
    folder: str
    """Working directory."""
    new_session: bool
    streams: list[int]
    """Descriptors of its standard input, output and error."""


@dataclass
class Child:
    """A running program."""

    pid: int
    pidfd: int
    user: int
    """Process id of the process that started it; 0 if it is for the whole run."""
    connection: socket.socket


@dataclass
class ForkServer:
    """The loop of the process. In a child, `run` returns the program to run."""

    listener: socket.socket
    users: dict[socket.socket, int] = field(default_factory=dict)
    """Open connections of users, each with the user's process id."""
    children: dict[int, Child] = field(default_factory=dict)
    """Running programs, by the descriptor that becomes readable at their end."""

    def run(self) -> Program | None:
        with selectors.DefaultSelector() as selector:
            self._selector = selector
            selector.register(self.listener, selectors.EVENT_READ)
            had_users = False
            while self.users or not had_users:
                ready = selector.select(None if had_users else FIRST_USER_SECONDS)
                if not ready:
                    return None
                for key, _ in ready:
                    if key.fileobj is self.listener:
                        program = self._accept()
                        if program is not None:
                            return program
                    elif key.fileobj in self.users:
                        self._leave(key.fileobj)
                    else:
                        self._reap(key.fd)
                had_users = had_users or bool(self.users)
        return None

    def _accept(self) -> Program | None:
        """Serve a new connection. Returns a program only in the child."""
        connection, _ = self.listener.accept()
        connection.settimeout(REQUEST_SECONDS)
        user, uid, _ = struct.unpack("3i", connection.getsockopt(*PEER_CREDENTIALS))
        try:
            if uid != os.getuid():
                raise ConnectionError(f"user {uid} may not start programs here")
            request, streams = receive(connection)
        except OSError:
            connection.close()
            return None
        if request == "use":
            self.users[connection] = user
            self._selector.register(connection, selectors.EVENT_READ)
            connection.sendall(b"ready\n")
            return None
        whole_run = request.pop("whole_run")
        server = os.getpid()
        pid = os.fork()
        if not pid:
            ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
            if os.getppid() != server:
                os._exit(1)  # it ended before the call
            self._close_all(connection)
            return Program(**request, streams=streams)
        for descriptor in streams:
            os.close(descriptor)
        pidfd = os.pidfd_open(pid)
        self.children[pidfd] = Child(pid, pidfd, 0 if whole_run else user, connection)
        self._selector.register(pidfd, selectors.EVENT_READ)
        with contextlib.suppress(OSError):
            socket.send_fds(connection, [f"{pid}\n".encode()], [pidfd])
        return None

    def _reap(self, pidfd: int) -> None:
        """Send the exit status and the CPU time of a program to the process that started it."""
        child = self.children.pop(pidfd)
        self._selector.unregister(pidfd)
        _, status, usage = os.wait4(child.pid, 0)
        os.close(pidfd)
        ended = {
            "status": os.waitstatus_to_exitcode(status),
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
        }
        with contextlib.suppress(OSError), child.connection:
            child.connection.sendall(json.dumps(ended).encode() + b"\n")

    def _leave(self, connection: Any) -> None:
        """End the programs of a user that has ended."""
        user = self.users.pop(connection)
        self._selector.unregister(connection)
        connection.close()
        for child in self.children.values():
            if child.user == user:
                os.kill(child.pid, signal.SIGKILL)

    def stop_all(self) -> None:
        """Kill the remaining programs; those of the whole run get SIGTERM and time to end."""
        for child in self.children.values():
            os.kill(child.pid, signal.SIGKILL if child.user else signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        with selectors.DefaultSelector() as selector:
            for pidfd in self.children:
                selector.register(pidfd, selectors.EVENT_READ)
            while selector.get_map() and (left := deadline - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    selector.unregister(key.fd)
                    os.waitpid(self.children.pop(key.fd).pid, 0)
        for child in self.children.values():
            os.kill(child.pid, signal.SIGKILL)

    def _close_all(self, connection: socket.socket) -> None:
        """Close the sockets of this process in a child."""
        self._selector.close()
        self.listener.close()
        for each in [connection, *self.users]:
            each.close()
        for child in self.children.values():
            os.close(child.pidfd)
            child.connection.close()


def _import(name: str) -> None:
    """Import a module; `name.*` is a package with all of its modules.

    A library that this environment does not have is skipped: no program here needs it.
    """
    try:
        module = importlib.import_module(name.removesuffix(".*"))
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return
    if name.endswith(".*"):
        for found in pkgutil.walk_packages(module.__path__, f"{module.__name__}."):
            if not found.name.endswith(".__main__"):
                importlib.import_module(found.name)


def receive(connection: socket.socket) -> tuple[Any, list[int]]:
    """Read the request of a new connection and its descriptors."""
    first, descriptors, _, _ = socket.recv_fds(connection, 65536, 3)
    with contextlib.ExitStack() as stack:
        for descriptor in descriptors:
            stack.callback(os.close, descriptor)
        if len(first) < HEADER.size:
            raise ConnectionError("no request came")
        (length,) = HEADER.unpack(first[: HEADER.size])
        content = bytearray(first[HEADER.size :])
        while len(content) < length:
            more = connection.recv(65536)
            if not more:
                raise ConnectionError("the request ended early")
            content += more
        stack.pop_all()
    return json.loads(bytes(content)), descriptors


def become(program: Program) -> None:
    """Run `program` in this process; returns or raises like it."""
    if program.new_session:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout.flush()
    sys.stderr.flush()
    for number, descriptor in enumerate(program.streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    unbuffered = bool(program.environment.get("PYTHONUNBUFFERED"))
    sys.stdout.reconfigure(line_buffering=os.isatty(1), write_through=unbuffered)  # type: ignore[union-attr]
    os.chdir(program.folder)
    os.environ.clear()
    os.environ.update(program.environment)
    kind, *rest = program.arguments
    for folder in reversed(program.environment.get("PYTHONPATH", "").split(os.pathsep)):
        if folder and folder not in sys.path:
            sys.path.insert(1, folder)
    if kind == "-m":
        sys.path[0] = os.getcwd()
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.path[0] = ""
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), _main_module())
    else:
        sys.path[0] = str(Path(kind).resolve().parent)
        sys.argv = [kind, *rest]
        runpy.run_path(kind, run_name="__main__")


def _main_module() -> dict[str, Any]:
    """The names of an empty `__main__`."""
    main = type(sys)("__main__")
    sys.modules["__main__"] = main
    return main.__dict__


def main(path: str, modules: list[str]) -> Program | None:
    """Import `modules` and serve. Returns a program only in a child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends after its users
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        for name in modules:
            _import(name)
        # Allow libraries again that were set to None to prevent their import.
        for name in [name for name, module in sys.modules.items() if module is None]:
            del sys.modules[name]
        threads = len(os.listdir("/proc/self/task"))
        if threads != 1:
            print(f"{threads} threads after the imports: a fork may hang", file=sys.stderr)
            return None
        # Keep garbage collection in children from touching, and so copying, the imported objects.
        gc.collect()
        gc.freeze()
        server = ForkServer(listener)
        program = server.run()
        if program is None:
            Path(path).unlink(missing_ok=True)
            server.stop_all()
    return program


if __name__ == "__main__":
    started = main(sys.argv[1], sys.argv[2:])
    if started is not None:
        become(started)
