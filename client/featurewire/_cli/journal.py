"""Files that grow while `featurewire embed` runs, so that a kill at any moment loses nothing.

A journal is the output under the name `FILE.partial`: rows are appended, and at the end the
file is renamed. `LineJournal` is a `.jsonl` output; `ArrayJournal` holds the vectors as a `.npy`
file beside its `.jsonl` index. A row counts once its line is whole: what a kill tore off is cut
when the journal is opened again.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from featurewire._cli.arguments import CommandFailure
from featurewire._cli.rows import NotARow, Origin, Vector, decode, encode

SYNC_SECONDS = 5.0
"""How much work a loss of power may cost; a kill costs none."""

_HEADER_BYTES = 128


class OutputError(CommandFailure):
    """A file is in the way, is in use, or is not what this command wrote."""


class Journal(Protocol):
    """What `featurewire embed` writes rows to."""

    rows: int

    def append(self, path: str, origin: Origin, vector: Vector) -> None: ...

    def close(self) -> None:
        """Make what was appended last, and let go of the files; a second call does nothing."""


def partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def load_index(
    index: Path,
    on_row: Callable[[str, Origin], None],
    *,
    vectors: bool = False,
    limit: int | None = None,
) -> tuple[int, int]:
    """Read the whole rows, `limit` at most; return how many and how many bytes they take.

    `vectors` says whether the rows must hold them, or must not. A last line without its end is
    what a kill leaves behind, and is not counted.
    """
    count = size = 0
    with index.open("rb", buffering=1 << 20) as lines:
        for line in lines:
            if not line.endswith(b"\n") or count == limit:
                break
            try:
                path, origin = decode(line, vector=vectors)
            except NotARow:
                raise OutputError(
                    f"line {count + 1} of {index} was not written by featurewire embed, or not for "
                    "this kind of output; choose another --output or start over with --overwrite"
                ) from None
            on_row(path, origin)
            count += 1
            size += len(line)
    return count, size


def is_index(path: Path) -> bool | None:
    """Whether the first line is a row of an array's index; None where no whole line tells."""
    with path.open("rb") as lines:
        first = lines.readline()
    if not first.endswith(b"\n"):
        return None
    try:
        decode(first, vector=False)
    except NotARow:
        return False
    return True


def npy_header(rows: int, dimension: int) -> bytes:
    """The header of a C-ordered float32 array [rows, dimension]: 128 bytes for any `rows`."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (rows, dimension)}
    )
    text = header.getvalue()
    body = text[10:].rstrip()
    return text[:8] + (_HEADER_BYTES - 10).to_bytes(2, "little") + body.ljust(117) + b"\n"


def npy_rows(path: Path) -> int:
    """How many whole rows the file holds, whatever its header says."""
    dimension = npy_dimension(path)
    return (path.stat().st_size - _HEADER_BYTES) // (4 * dimension) if dimension else 0


def npy_dimension(path: Path) -> int | None:
    """The row length of a `.npy` file of this command; None when its header is not whole."""
    with path.open("rb") as file:
        try:
            np.lib.format.read_magic(file)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        except ValueError:
            return None
        if len(shape) != 2 or fortran or dtype != np.dtype("<f4") or file.tell() != _HEADER_BYTES:
            raise OutputError(
                f"{path} was not written by featurewire embed; "
                "choose another --output or start over with --overwrite"
            )
    return int(shape[1])


class _Appended:
    """A file that is only appended to, without buffers: what was written survives a kill."""

    def __init__(self, path: Path, size: int) -> None:
        self.file = open(path, "r+b" if path.exists() else "w+b", buffering=0)  # noqa: SIM115
        lock(self.file.fileno(), path)
        self.file.truncate(size)
        self.file.seek(size)

    def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            view = view[self.file.write(view) :]

    def close(self) -> None:
        self.file.close()


class LineJournal:
    """A growing `.jsonl` file."""

    def __init__(self, path: Path, *, rows: int = 0, size: int = 0) -> None:
        self.rows = rows
        self._lines = _Appended(path, size)
        self._synced = time.monotonic()

    def append(self, path: str, origin: Origin, vector: Vector) -> None:
        self._lines.write(encode(self.rows, path, origin, vector))
        self.rows += 1
        if time.monotonic() - self._synced > SYNC_SECONDS:
            os.fsync(self._lines.file.fileno())
            self._synced = time.monotonic()

    def close(self) -> None:
        if self._lines.file.closed:
            return
        os.fsync(self._lines.file.fileno())
        self._lines.close()


class ArrayJournal:
    """A growing `.npy` file and its index. A row's line follows its vector, never the reverse."""

    def __init__(self, vectors: Path, index: Path, *, rows: int = 0, size: int = 0) -> None:
        self.rows = rows
        self.dimension = npy_dimension(vectors) if rows else None
        data = _HEADER_BYTES + 4 * rows * self.dimension if self.dimension else 0
        self._vectors = _Appended(vectors, data)
        self._index = _Appended(index, size)
        self._synced = time.monotonic()

    def append(self, path: str, origin: Origin, vector: Vector) -> None:
        if self.dimension is None:
            self.dimension = len(vector)
            self._vectors.write(npy_header(0, self.dimension))
        if len(vector) != self.dimension:
            raise OutputError(
                f"{origin} answered with {len(vector)} floats for {path}, the rows before have "
                f"{self.dimension}; choose another --output"
            )
        self._vectors.write(np.ascontiguousarray(vector, "<f4").data.cast("B"))
        self._index.write(encode(self.rows, path, origin))
        self.rows += 1
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self._sync()

    def close(self) -> None:
        if self._vectors.file.closed:
            return
        if self.dimension is not None:
            self._vectors.file.seek(0)
            self._vectors.write(npy_header(self.rows, self.dimension))
        self._sync()
        self._vectors.close()
        self._index.close()

    def _sync(self) -> None:
        os.fsync(self._vectors.file.fileno())
        os.fsync(self._index.file.fileno())
        self._synced = time.monotonic()


def lock(descriptor: int, path: Path) -> None:
    """Refuse a file that another process is appending to; a killed one's lock is gone with it."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(f"another process is writing {path}; wait for it to end") from None
