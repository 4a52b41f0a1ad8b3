"""Reserves the server's addresses early, so that a conflict is found before models load."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

MAX_PATH_BYTES = 108


@contextlib.contextmanager
def reserved(port: int, flag: str) -> Iterator[None]:
    """Bind `port` without listening. Raises OSError, with the port, if another process has it."""
    if not port:
        yield
        return
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind(("0.0.0.0", port))
        except OSError as error:
            raise OSError(
                f"cannot listen on port {port}: {error.strerror}; choose another --{flag} or "
                "stop the process that has it"
            ) from error
        yield


def check_socket(path: str) -> None:
    """Raise OSError if a UNIX socket cannot be created at `path`."""
    if not path:
        return
    if not Path(path).absolute().parent.is_dir():
        raise OSError(f"cannot listen on {path}: there is no such folder")
    if Path(path).exists() and not stat.S_ISSOCK(Path(path).stat().st_mode):
        raise OSError(f"cannot listen on {path}: the file there is not a socket")


class UnixSocket:
    """A UNIX socket at `path`, which replaces the socket of another server if there is one.

    gRPC listens at `hidden`, and `show` atomically renames that to `path`. So clients can connect
    at any time. gRPC unlinks only the path that it was given, so a server that stops after its
    successor has started does not remove the successor's socket.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        hidden = self._path.with_name(f".{secrets.token_hex(4)}")
        # The path of a UNIX socket has at most 107 bytes.
        self.hidden = hidden if len(os.fsencode(hidden)) < MAX_PATH_BYTES else self._path
        self._identity: tuple[int, int] | None = None

    def show(self) -> None:
        """Rename `hidden` to `path`; call this after gRPC listens there. Raises OSError."""
        self._identity = _identity(self.hidden)
        os.replace(self.hidden, self._path)

    def remove(self) -> None:
        """Remove `path` unless a successor has replaced the socket."""
        with contextlib.suppress(OSError):
            if self._identity and _identity(self._path) == self._identity:
                self._path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
