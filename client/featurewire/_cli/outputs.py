"""The output of `featurewire embed`: existing files, the journal, and publishing.

New rows go into a journal, `FILE.partial`. At the end, the published rows and the journal's rows
are written to temporary files, which are then renamed, and the journal is deleted last. So a file
under its final name is always complete. As long as the journal exists, it says how many of the
published rows count, so a kill between two renames does no harm.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from featurewire._cli.formats import START_OVER, Format, Jsonl, Npy, partial
from featurewire._cli.journal import Journal, OutputError, check_journal, lock
from featurewire._cli.parquet import Parquet
from featurewire._cli.rows import Origin, Row, Vector
from featurewire.plugin.files import sync

FORMATS: dict[str, Callable[[Path], Format]] = {
    ".npy": Npy,
    ".parquet": Parquet,
    ".jsonl": Jsonl,
}


class OutputInTheWay(OutputError):
    """Output files exist, and no option says what to do with them: wrong usage."""


class Output:
    """Call `load` to resume, `append` for each row, and `publish` or `leave` at the end."""

    def __init__(self, path: Path) -> None:
        if path.suffix not in FORMATS:
            raise ValueError(f"{path} must end in one of {', '.join(FORMATS)}")
        # A rename would replace a symbolic link, not the file it points to.
        path = path.resolve() if path.is_symlink() else path
        self._format = FORMATS[path.suffix](path)
        self._partial = partial(path)
        self._journal: Journal | None = None
        self._published = 0
        self._held: BinaryIO | None = None

    @property
    def files(self) -> list[Path]:
        """The output files that exist under their final names."""
        return [path for path in self._format.paths if path.exists()]

    @property
    def rows(self) -> int:
        """Number of rows, loaded and appended."""
        return self._published + (self._journal.rows if self._journal else 0)

    def check_free(self, *, resume: bool, overwrite: bool) -> None:
        """Refuse existing files, unless an option says what to do with them."""
        begun = [self._partial] if self._partial.exists() else []
        for path in (*self.files, *begun):
            if not path.is_file():
                raise OutputInTheWay(f"{path} is not a regular file; choose another --output")
        if conflict := self._format.conflict():
            raise OutputInTheWay(conflict)
        try:
            for path in begun:
                check_journal(path)
        except OutputError as error:
            raise OutputInTheWay(str(error)) from None
        if resume or overwrite:
            return
        if files := self.files:
            raise OutputInTheWay(
                f"{files[0]} exists; --resume continues it, --overwrite replaces it"
            )
        if begun:
            raise OutputInTheWay(
                f"{begun[0]} is left from an unfinished run; --resume continues it, --overwrite "
                "starts over"
            )

    def load(self, on_row: Callable[[str, Origin], None]) -> None:
        """Call `on_row` for each existing row, and lock the files against other processes."""
        limit: int | None = None
        if self._partial.exists():
            self._journal = Journal(self._partial)
            limit = self._journal.extends if self._journal.rows else None
        if self.files and limit != 0:
            self._held = self.files[0].open("rb")
            lock(self._held.fileno(), self.files[0])
            for row in self._format.read(vectors=False, limit=limit):
                on_row(row.path, row.origin)
                self._published += 1
        if limit is not None and self._published < limit:
            raise OutputError(
                f"{self._partial} continues {limit} rows of {self._format.paths[0]}, which has "
                f"{self._published}; {START_OVER}"
            )
        if self._journal is not None:
            self._journal.extends = self._published
            for row in self._journal.read():
                on_row(row.path, row.origin)

    def append(self, path: str, origin: Origin, vector: Vector) -> None:
        if self._journal is None:
            self._journal = Journal(self._partial, extends=self._published, empty=True)
        if self._journal.dimension is None and self._published:
            first = next(self._format.read(vectors=True, limit=1)).vector
            if first is not None and len(first) != len(vector):
                raise OutputError(
                    f"{origin} answered with {len(vector)} floats for {path}, but the earlier "
                    f"rows have {len(first)}; choose another --output"
                )
        self._journal.append(path, origin, vector)

    def publish(self, on_row: Callable[[], None] = lambda: None) -> None:
        """Write all rows to the final files; calls `on_row` after each row."""
        journal = self._journal
        if journal is None or journal.dimension is None:
            self.leave()
            return
        journal.sync()
        names = [path.with_name(path.name + ".tmp") for path in self._format.paths]
        try:
            self._format.write(
                names, self._all_rows(journal, on_row), count=self.rows, dimension=journal.dimension
            )
            for name in names:
                with name.open("rb") as file:
                    os.fsync(file.fileno())
            for name, path in zip(names, self._format.paths, strict=True):
                os.replace(name, path)
        except BaseException:
            for name in names:
                name.unlink(missing_ok=True)
            raise
        sync(self._partial.absolute().parent)
        self._partial.unlink()
        self._release()

    def leave(self) -> None:
        """End early. Keeps the journal for `--resume`, but deletes an empty one."""
        self._release()
        if self._journal is not None and not self._journal.rows:
            self._partial.unlink(missing_ok=True)

    def advice(self) -> str:
        """The end of an error text: how many rows the journal holds, and how to resume."""
        if self._journal is None or not self._journal.rows:
            return ""
        return f"; {self._journal.rows} rows are in {self._partial}, --resume continues them"

    def _release(self) -> None:
        if self._journal is not None:
            with contextlib.suppress(OSError):
                self._journal.close()
        if self._held is not None:
            self._held.close()

    def _all_rows(self, journal: Journal, on_row: Callable[[], None]) -> Iterator[Row]:
        before = self._format.read(vectors=True, limit=self._published) if self._published else ()
        for row in chain(before, journal.read()):
            yield row
            on_row()
