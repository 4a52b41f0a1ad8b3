"""Takes the server's addresses early, so that a taken one is known before a model is loaded."""

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
    """Hold `port` without listening on it; raises OSError, naming it, when another has it."""
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
    """Raises OSError where no UNIX socket `path` can be."""
    if not path:
        return
    if not Path(path).absolute().parent.is_dir():
        raise OSError(f"cannot listen on {path}: there is no such folder")
    if Path(path).exists() and not stat.S_ISSOCK(Path(path).stat().st_mode):
        raise OSError(f"cannot listen on {path}: the file there is not a socket")


class UnixSocket:
    """A UNIX socket at `path`, which another server may hold: it is taken over, whole or not.

    gRPC listens at `hidden`, and `show` puts that in the place of `path` in one step. So there is
    always one to connect to, and a server that stops later than its successor has started does
    not remove the successor's: gRPC unlinks the path that it was given.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        hidden = self._path.with_name(f".{secrets.token_hex(4)}")
        # An address has room for 107 bytes.
        self.hidden = hidden if len(os.fsencode(hidden)) < MAX_PATH_BYTES else self._path
        self._identity: tuple[int, int] | None = None

    def show(self) -> None:
        """Call when `hidden` is listened to. Raises OSError."""
        self._identity = _identity(self.hidden)
        os.replace(self.hidden, self._path)

    def remove(self) -> None:
        """Remove `path` unless it is a successor's."""
        with contextlib.suppress(OSError):
            if self._identity and _identity(self._path) == self._identity:
                self._path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
