"""Takes the server's addresses early, so that a taken one is known before a model is loaded."""

from __future__ import annotations

import contextlib
import socket
import stat
from collections.abc import Iterator
from pathlib import Path


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
    """Raises OSError where no UNIX socket `path` can be, or a server answers on it; gRPC would
    take it away."""
    if not path:
        return
    if not Path(path).absolute().parent.is_dir():
        raise OSError(f"cannot listen on {path}: there is no such folder")
    if not Path(path).exists():
        return
    if not stat.S_ISSOCK(Path(path).stat().st_mode):
        raise OSError(f"cannot listen on {path}: there is a file that is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(path) == 0:
            raise OSError(f"cannot listen on {path}: another process has it")
