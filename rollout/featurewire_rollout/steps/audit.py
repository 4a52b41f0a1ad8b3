"""A log of JSON lines about who did what."""

from __future__ import annotations

import getpass
import json
import os
import socket
from datetime import UTC, datetime
from typing import Any

from featurewire_rollout.errors import RolloutError


def owner(command: str) -> str:
    """A description of this process, for the lock and its error."""
    return f"{_user()}@{socket.gethostname()} (pid {os.getpid()}, {command})"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the user of a container may lack a name
        return str(os.getuid())


class Audit:
    """Appends lines to a file; does nothing without a file."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """Raises `RolloutError` if the file cannot be written."""
        self._path = path
        if path is not None:
            self._append(b"")

    def record(self, **fields: Any) -> None:
        """Append one line: the time, the user, the host, the process and `fields`."""
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
            # One write with O_APPEND, so that lines of two operators do not mix.
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise RolloutError(
                f"cannot append to the audit file {os.fspath(self._path)}: {error.strerror}"
            ) from error
