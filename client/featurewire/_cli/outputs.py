"""The output of `featurewire embed`: what is there already, where rows go, how it is published.

Each kind of file has a journal (`FILE.partial`) that rows are appended to and that takes the
file's name at the end, by a rename, so that `FILE` is always whole. A journal holds at least the
rows of `FILE`: while both are there, the journal counts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from featurewire._cli import parquet
from featurewire._cli.journal import (
    ArrayJournal,
    Journal,
    LineJournal,
    OutputError,
    is_index,
    load_index,
    lock,
    npy_rows,
)
from featurewire._cli.rows import Origin


class OutputInTheWay(OutputError):
    """There are files, and it was not said what to do with them: wrong usage."""


OnRow = Callable[[str, Origin], None]


class Output(Protocol):
    """One kind of file. Call `load` to go on with one, `journal` to add rows, then `publish`."""

    def files(self) -> list[Path]:
        """What is there under the names that `publish` gives."""

    def begun(self) -> list[Path]:
        """What an earlier run left unfinished."""

    def taken(self) -> str | None:
        """Why not even `--overwrite` may have these names: what is there is another's."""

    def load(self, on_row: OnRow) -> int:
        """Report the rows that are there and keep other processes away; return how many."""

    def journal(self) -> Journal:
        """Open the journal behind the loaded rows; it is empty where none were loaded."""

    def publish(self) -> None:
        """Give the closed journal its final name."""


def output_for(path: Path) -> Output:
    """The output that the suffix asks for; `ValueError` for one that is not known."""
    kinds: dict[str, Callable[[Path], Output]] = {
        ".npy": NpyOutput,
        ".parquet": ParquetOutput,
        ".jsonl": JsonlOutput,
    }
    if path.suffix not in kinds:
        raise ValueError(f"{path} ends in none of {', '.join(kinds)}")
    # A rename would replace a link, not the file that it leads to.
    return kinds[path.suffix](path.resolve() if path.is_symlink() else path)


def check_free(output: Output, *, resume: bool, overwrite: bool) -> None:
    """Refuse files that are there already, unless it was said what to do with them."""
    for path in (*output.files(), *output.begun()):
        if path.exists() and not path.is_file():
            raise OutputInTheWay(f"{path} is no regular file; choose another --output")
    if taken := output.taken():
        raise OutputInTheWay(taken)
    if resume or overwrite:
        return
    if files := output.files():
        raise OutputInTheWay(
            f"{files[0]} exists; --resume goes on with it, --overwrite replaces it"
        )
    if begun := output.begun():
        raise OutputInTheWay(
            f"{begun[0]} is left from a run that did not end; --resume goes on with it, "
            "--overwrite starts over"
        )


class JsonlOutput:
    """`FILE.jsonl`: a line a row, with the vector."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = _with_suffix(path, ".partial")
        self._loaded = (0, 0)
        self._held: BinaryIO | None = None

    def files(self) -> list[Path]:
        return _present(self._path)

    def begun(self) -> list[Path]:
        return _present(self._partial)

    def taken(self) -> str | None:
        array = self._path.with_suffix(".npy")
        arrays = _present(array, _with_suffix(array, ".partial"))
        for path in (*self.files(), *self.begun()):
            if arrays and is_index(path):
                return f"{path} is the index of {arrays[0]}; choose another --output"
        return None

    def load(self, on_row: OnRow) -> int:
        source = self._partial if self.begun() else self._path
        if source.exists():
            self._held = hold(source)
            self._loaded = load_index(source, on_row, vectors=True)
        return self._loaded[0]

    def journal(self) -> Journal:
        rows, size = self._loaded
        if rows and not self.begun():
            with _unnamed(self._partial) as partial:
                shutil.copyfile(self._path, partial)
        _release(self._held)
        return LineJournal(self._partial, rows=rows, size=size)

    def publish(self) -> None:
        os.replace(self._partial, self._path)
        _sync_directory(self._path)


class _ArrayOutput:
    """An output whose journal is a `.npy` file (`vectors`) and its index."""

    def __init__(self, vectors: Path, index: Path) -> None:
        self._vectors = vectors
        self._index = index
        self._loaded = (0, 0)
        self._held: BinaryIO | None = None

    def begun(self) -> list[Path]:
        # The index comes to be last and goes first: vectors without it are of no use.
        return [self._vectors, self._index] if self._index.exists() else []

    def taken(self) -> str | None:
        # A kill may have left it without a whole line.
        if self._index.exists() and is_index(self._index) is False:
            return _no_index(self._index)
        return None

    def load(self, on_row: OnRow) -> int:
        if self.begun():
            self._held = hold(self._index)
            whole = npy_rows(self._vectors) if self._vectors.exists() else 0
            self._loaded = load_index(self._index, on_row, limit=whole)
        elif source := self._source():
            self._held = hold(source)
            self._loaded = self._load_published(on_row)
        return self._loaded[0]

    def journal(self) -> Journal:
        rows, size = self._loaded
        if rows and not self.begun():
            size = self._copy_published()
        _release(self._held)
        return ArrayJournal(self._vectors, self._index, rows=rows, size=size)

    def _source(self) -> Path | None:
        """The published file to go on with."""
        raise NotImplementedError

    def _load_published(self, on_row: OnRow) -> tuple[int, int]:
        """Report its rows; return how many, and the size of their index where that is known."""
        raise NotImplementedError

    def _copy_published(self) -> int:
        """Make the journal from it, the index last; return the size of the index."""
        raise NotImplementedError


class NpyOutput(_ArrayOutput):
    """`FILE.npy`, a float32 array [rows, dimension], and `FILE.jsonl`, its index."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._path_index = path.with_suffix(".jsonl")
        super().__init__(_with_suffix(path, ".partial"), _with_suffix(self._path_index, ".partial"))

    def files(self) -> list[Path]:
        return _present(self._path, self._path_index)

    def taken(self) -> str | None:
        if self._path_index.exists() and not is_index(self._path_index):
            return _no_index(self._path_index)
        return super().taken()

    def load(self, on_row: OnRow) -> int:
        if self.begun() and not self._vectors.exists() and self._path.exists():
            # Killed between the two renames of `publish`.
            os.replace(self._index, self._path_index)
        if not self.begun() and self.files() == [self._path_index]:
            raise OutputError(
                f"{self._path_index} exists without {self._path}; choose another --output or start "
                "over with --overwrite"
            )
        return super().load(on_row)

    def publish(self) -> None:
        os.replace(self._vectors, self._path)
        os.replace(self._index, self._path_index)
        _sync_directory(self._path)

    def _source(self) -> Path | None:
        return self._path if self._path.exists() else None

    def _load_published(self, on_row: OnRow) -> tuple[int, int]:
        whole = npy_rows(self._path)
        rows, size = load_index(self._path_index, on_row) if self._path_index.exists() else (0, 0)
        if rows != whole:
            raise OutputError(
                f"{self._path} holds {whole} rows and its index {self._path_index} {rows}; "
                "put the right index beside it or start over with --overwrite"
            )
        return rows, size

    def _copy_published(self) -> int:
        with _unnamed(self._index) as index, _unnamed(self._vectors) as vectors:
            shutil.copyfile(self._path, vectors)
            shutil.copyfile(self._path_index, index)
        return self._loaded[1]


class ParquetOutput(_ArrayOutput):
    """`FILE.parquet`, written from the journal at the end: its footer must come last."""

    def __init__(self, path: Path) -> None:
        parquet.require_pyarrow()
        self._path = path
        super().__init__(_with_suffix(path, ".npy.partial"), _with_suffix(path, ".jsonl.partial"))

    def files(self) -> list[Path]:
        return _present(self._path)

    def publish(self) -> None:
        with _unnamed(self._path) as path:
            parquet.write_parquet(path, vectors=self._vectors, index=self._index)
        _sync_directory(self._path)
        self._index.unlink()
        self._vectors.unlink()

    def _source(self) -> Path | None:
        return self._path if self._path.exists() else None

    def _load_published(self, on_row: OnRow) -> tuple[int, int]:
        return parquet.load_parquet(self._path, on_row), 0

    def _copy_published(self) -> int:
        with _unnamed(self._index) as index, _unnamed(self._vectors) as vectors:
            journal = ArrayJournal(vectors, index)
            parquet.copy_parquet(self._path, journal)
            journal.close()
        return self._index.stat().st_size


def hold(path: Path) -> BinaryIO:
    """Open and lock the file, so that no second process goes on with it."""
    file = path.open("rb")
    lock(file.fileno(), path)
    return file


def _release(held: BinaryIO | None) -> None:
    if held is not None:
        held.close()


def _present(*paths: Path) -> list[Path]:
    return [path for path in paths if path.exists()]


def _no_index(path: Path) -> str:
    return (
        f"{path} exists and is no index that featurewire embed wrote; move it away or choose "
        "another --output"
    )


def _with_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


@contextlib.contextmanager
def _unnamed(target: Path) -> Iterator[Path]:
    """Where to write `target`: it takes its name once it is whole, and is gone if it fails."""
    unnamed = _with_suffix(target, ".tmp")
    try:
        yield unnamed
        os.replace(unnamed, target)
    except BaseException:
        unnamed.unlink(missing_ok=True)
        raise


def _sync_directory(path: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(path.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
