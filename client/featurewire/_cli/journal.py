"""The journal that `featurewire embed` appends to, so that a kill at any moment loses no row.

All output formats share one journal format: a header line, then per row a line of JSON and the
bytes of its vector. A row counts only if all of its bytes are there. Opening the journal cuts off a
last row that a kill left incomplete.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from featurewire._cli.rows import NotARow, Origin, Row, Vector, decode, encode
from featurewire.plugin.arguments import CommandFailure

SYNC_SECONDS = 5.0
"""Seconds of work that a power failure may cost; a kill does not cost any."""

_KIND = b'{"featurewire_journal": 1, '


class OutputError(CommandFailure):
    """A file is in the way or in use, or another program wrote it."""


class Journal:
    """Rows to add after the first `extends` rows of the published file.

    Opening the journal locks it, reads its complete rows and cuts off the rest.
    """

    def __init__(self, path: Path, *, extends: int = 0, empty: bool = False) -> None:
        """`empty`: discard existing rows. `extends` is used if the journal does not hold rows."""
        self.path = path
        self.extends = extends
        self.dimension: int | None = None
        self.rows = 0
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        # Unbuffered, so that written rows survive a kill.
        self._file = open(descriptor, "r+b", buffering=0)  # noqa: SIM115
        try:
            lock(descriptor, path)
            size = 0
            for _, end in self._scan() if not empty else ():
                self.rows, size = self.rows + 1, end
            self._file.truncate(size)
            self._file.seek(size)
        except BaseException:
            self._file.close()
            raise
        if not self.rows:
            self.extends, self.dimension = extends, None
        self._synced = time.monotonic()

    def append(self, path: str, origin: Origin, vector: Vector) -> None:
        head = b""
        if self.dimension is None:
            self.dimension = len(vector)
            fields = f'"extends": {self.extends}, "dimension": {self.dimension}}}\n'
            head = _KIND + fields.encode()
        if len(vector) != self.dimension:
            raise OutputError(
                f"{origin} answered with {len(vector)} floats for {path}, but the earlier rows "
                f"have {self.dimension}; choose another --output"
            )
        line = encode(self.extends + self.rows, path, origin)
        data = memoryview(head + line + np.ascontiguousarray(vector, "<f4").tobytes())
        while data:
            data = data[self._file.write(data) :]
        self.rows += 1
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def read(self) -> Iterator[Row]:
        """All rows: the complete ones from before, and the ones appended since."""
        for row, _ in self._scan(vectors=True):
            yield row

    def close(self) -> None:
        """Sync to disk and close the file; a second call does nothing."""
        if not self._file.closed:
            self.sync()
            self._file.close()

    def _scan(self, *, vectors: bool = False) -> Iterator[tuple[Row, int]]:
        """Each complete row, and the offset of its end."""
        with self.path.open("rb", buffering=1 << 20) as file:
            size = os.fstat(file.fileno()).st_size
            head = _head(file, self.path)
            if head is None:
                return
            self.extends, self.dimension = head
            while (line := file.readline()).endswith(b"\n"):
                try:
                    path, origin = decode(line, vector=False)
                except NotARow:
                    raise _not_ours(self.path) from None
                end = file.tell() + 4 * self.dimension
                if end > size:
                    return
                vector = None
                if vectors:
                    vector = np.frombuffer(file.read(4 * self.dimension), "<f4")
                else:
                    file.seek(end)
                yield Row(path, origin, vector), end


def check_journal(path: Path) -> None:
    """Refuse a file that is not a journal. An incomplete header line counts as a journal."""
    with path.open("rb") as file:
        _head(file, path)


def _head(file: BinaryIO, path: Path) -> tuple[int, int] | None:
    """`extends` and `dimension` from the header line; None if the line is incomplete."""
    line = file.readline(1024)
    if not line.endswith(b"\n"):
        if line[: len(_KIND)] != _KIND[: len(line)]:
            raise _not_ours(path)
        return None
    try:
        fields = json.loads(line) if line.startswith(_KIND) else {}
        return int(fields["extends"]), int(fields["dimension"])
    except (ValueError, KeyError):
        raise _not_ours(path) from None


def _not_ours(path: Path) -> OutputError:
    return OutputError(f"{path} is not a featurewire journal; move it or choose another --output")


def lock(descriptor: int, path: Path) -> None:
    """Refuse a file that another process is writing. A lock ends with its process."""
    if sys.platform == "win32":  # does not have flock
        return
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(f"another process is writing {path}; wait for it to end") from None
