"""One JSON line a step, for whoever asks later who did what."""

from __future__ import annotations

import getpass
import json
import os
import socket
from datetime import UTC, datetime
from typing import Any

from featurewire_rollout.errors import RolloutError

__all__ = ["Audit", "owner"]


def owner(command: str) -> str:
    """Who runs this, in words: for the lock and for the audit."""
    return f"{_user()}@{socket.gethostname()} (pid {os.getpid()}, {command})"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


class Audit:
    """Appends to a file; without one, does nothing."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """Raises `RolloutError` when the file cannot be appended to."""
        self._path = path
        if path is not None:
            self._append(b"")

    def record(self, **fields: Any) -> None:
        """Append one line: the time, who, and `fields`."""
        if self._path is None:
            return
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "user": _user(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        } | fields
        self._append(json.dumps(line).encode() + b"\n")

    def _append(self, line: bytes) -> None:
        assert self._path is not None
        try:
            # One write with O_APPEND: lines of two operators do not mix.
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise RolloutError(
                f"cannot append to the audit file {os.fspath(self._path)}: {error.strerror}"
            ) from error
