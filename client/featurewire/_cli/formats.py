"""The output formats of `featurewire embed`: how rows are written to files and read back.

`write` gets temporary names, one for each of `paths`; its caller renames the files afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from featurewire._cli.journal import OutputError
from featurewire._cli.rows import NotARow, Row, decode, encode, vector_in

START_OVER = "choose another --output or start over with --overwrite"


class Format(Protocol):
    paths: list[Path]
    """The published files."""

    def conflict(self) -> str | None:
        """Error text if a file with one of these names belongs to another output; else None.

        Not even `--overwrite` replaces such a file.
        """

    def read(self, *, vectors: bool, limit: int | None) -> Iterator[Row]:
        """The first `limit` rows of the published files (None: all), with or without vectors."""

    def write(self, paths: list[Path], rows: Iterable[Row], *, count: int, dimension: int) -> None:
        """Write `count` rows of `dimension` floats."""


class Jsonl:
    """`FILE.jsonl`: one line per row, with its vector."""

    def __init__(self, path: Path) -> None:
        self.paths = [path]

    def conflict(self) -> str | None:
        (path,) = self.paths
        array = path.with_suffix(".npy")
        begun = partial(array)
        if begun.exists():
            return f"{path} is reserved for the index of {begun}; choose another --output"
        if array.exists() and path.exists() and _is_index(path):
            return f"{path} is the index of {array}; choose another --output"
        return None

    def read(self, *, vectors: bool, limit: int | None) -> Iterator[Row]:
        for line, row in _lines(self.paths[0], vector=True, limit=limit):
            try:
                yield row._replace(vector=vector_in(line)) if vectors else row
            except NotARow:
                raise OutputError(f"the row of {row.path} in {self.paths[0]} is broken") from None

    # `count` and `dimension` are for arrays, whose header holds the shape.
    def write(self, paths: list[Path], rows: Iterable[Row], *, count: int, dimension: int) -> None:  # noqa: ARG002
        with paths[0].open("wb") as lines:
            for number, row in enumerate(rows):
                lines.write(encode(number, row.path, row.origin, row.vector))


class Npy:
    """`FILE.npy`, a float32 array `[rows, dimension]`, and its index `FILE.jsonl`."""

    def __init__(self, path: Path) -> None:
        self.paths = [path, path.with_suffix(".jsonl")]

    def conflict(self) -> str | None:
        _, index = self.paths
        begun = partial(index)
        if begun.exists():
            return (
                f"{begun} belongs to an unfinished run that writes {index}; choose another --output"
            )
        if index.exists() and not _is_index(index):
            return (
                f"{index} exists and is not a featurewire index; move it or choose another --output"
            )
        return None

    def read(self, *, vectors: bool, limit: int | None) -> Iterator[Row]:
        path, index = self.paths
        if not path.exists():
            raise OutputError(f"{index} exists without {path}; {START_OVER}")
        try:
            array = np.load(path, mmap_mode="r")
        except (ValueError, EOFError):
            array = np.empty(0)
        if array.ndim != 2 or array.dtype != np.dtype("<f4"):
            raise OutputError(f"{path} was not written by featurewire embed; {START_OVER}")
        if limit is None:
            lines = sum(1 for _ in _lines(index, vector=False)) if index.exists() else 0
            if lines != len(array):
                raise OutputError(
                    f"{path} has {len(array)} rows but its index {index} has {lines}; put the "
                    "right index next to it or start over with --overwrite"
                )
        if not index.exists():
            return
        for (_, row), vector in zip(_lines(index, vector=False, limit=limit), array, strict=False):
            yield row._replace(vector=vector) if vectors else row

    def write(self, paths: list[Path], rows: Iterable[Row], *, count: int, dimension: int) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, dimension)}
        with paths[0].open("wb") as array, paths[1].open("wb") as lines:
            np.lib.format.write_array_header_1_0(array, header)
            for number, row in enumerate(rows):
                array.write(np.asarray(row.vector, "<f4").tobytes())
                lines.write(encode(number, row.path, row.origin))


def partial(path: Path) -> Path:
    """The path of an output's journal."""
    return path.with_name(path.name + ".partial")


def _lines(path: Path, *, vector: bool, limit: int | None = None) -> Iterator[tuple[bytes, Row]]:
    """Complete lines and their rows, without vectors. Skips an incomplete last line."""
    with path.open("rb", buffering=1 << 20) as lines:
        for number, line in enumerate(lines):
            if not line.endswith(b"\n") or number == limit:
                break
            try:
                yield line, Row(*decode(line, vector=vector))
            except NotARow:
                raise OutputError(
                    f"line {number + 1} of {path} was not written by featurewire embed for this "
                    f"kind of output; {START_OVER}"
                ) from None


def _is_index(path: Path) -> bool:
    """Whether the file begins like the index of an array: a row without a vector."""
    with path.open("rb") as lines:
        try:
            decode(lines.readline(), vector=False)
        except NotARow:
            return False
    return True
