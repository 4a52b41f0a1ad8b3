"""Vectors of photos in LanceDB: one table per vector space, and a pointer to the current one.

Vectors of two spaces cannot be compared, so each space has its own table, named after it. Every row
has its space and version. `current.json` names the table that searches read.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa

__all__ = ["IndexProblem", "Match", "PhotoIndex", "Row", "SpaceTable"]

GOOD = "reason IS NULL"
PREFIX = "space_"


class IndexProblem(Exception):
    """A problem for the user to fix, in one line."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A photo, and its vector or the reason for its absence."""

    path: str
    """Relative to the folder of photos, with slashes."""
    size: int
    """Bytes. A photo has changed if this or `modified` differs."""
    modified: int
    """Nanoseconds since 1970."""
    vector: np.ndarray | None
    """float32 `(dimension,)`."""
    reason: str | None
    version: int


@dataclass(frozen=True)
class Match:
    path: str
    similarity: float
    """Cosine, -1 to 1."""


class SpaceTable:
    """The vectors of one space."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self.name: str = table.name
        about = table.schema.metadata or {}
        self.vector_space = about[b"vector_space"].decode()
        self.stand_in = about[b"stand_in"] == b"1"

    def count(self) -> int:
        """Number of photos with a vector."""
        return int(self._table.count_rows(GOOD))

    def seen(self) -> dict[str, tuple[int, int]]:
        """Size and modification time of every embedded or refused photo, by path."""
        columns = ["path", "size", "modified"]
        rows = self._table.search().select(columns).limit(self._table.count_rows() + 1).to_arrow()
        paths, sizes, times = (rows.column(name).to_pylist() for name in columns)
        return {path: (size, time) for path, size, time in zip(paths, sizes, times, strict=True)}

    def write(self, rows: list[Row]) -> None:
        """Add rows; a row with an existing path replaces the old row."""
        records = [
            {
                "path": row.path,
                "size": row.size,
                "modified": row.modified,
                "vector": row.vector,
                "reason": row.reason,
                "version": row.version,
                "vector_space": self.vector_space,
            }
            for row in rows
        ]
        merge = self._table.merge_insert("path").when_matched_update_all()
        merge = merge.when_not_matched_insert_all()
        # Refused photos do not have a vector, so store null.
        merge.execute(pa.Table.from_pylist(records, self._table.schema), on_bad_vectors="null")

    def remove(self, paths: Iterable[str]) -> None:
        quoted = ", ".join(_quoted(path) for path in paths)
        if quoted:
            self._table.delete(f"path IN ({quoted})")

    def compact(self) -> None:
        """Merge the many small files of small writes."""
        self._table.optimize()

    def page(self, offset: int, limit: int) -> list[str]:
        """Paths of photos with a vector, from `offset` on."""
        query = self._table.search().where(GOOD).select(["path"]).offset(offset).limit(limit)
        return [str(path) for path in query.to_arrow().column("path").to_pylist()]

    def vector_of(self, path: str) -> np.ndarray | None:
        """float32 `(dimension,)`, or None for a photo that is not in the index."""
        query = self._table.search().where(f"{GOOD} AND path = {_quoted(path)}")
        vectors = query.select(["vector"]).limit(1).to_arrow().column("vector").to_pylist()
        return np.asarray(vectors[0], np.float32) if vectors else None

    def neighbours(self, vector: np.ndarray, count: int) -> list[Match]:
        """The `count` photos nearest to a vector, nearest first. Exact, because it reads every
        row."""
        query = self._table.search(vector, vector_column_name="vector").metric("cosine")
        found = query.where(GOOD).select(["path", "_distance"]).limit(count).to_arrow()
        paths, distances = (found.column(name).to_pylist() for name in ("path", "_distance"))
        return [Match(path, 1.0 - far) for path, far in zip(paths, distances, strict=True)]


class PhotoIndex:
    """The tables in a folder. Several processes may read while one writes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # Each read sees all earlier writes of other processes if this interval is 0.
        self._database = lancedb.connect(folder, read_consistency_interval=datetime.timedelta(0))

    def table_for(self, vector_space: str, *, dimension: int, stand_in: bool = False) -> SpaceTable:
        """The table of a space; a missing one is created. Searches read the first table."""
        about = {"vector_space": vector_space, "stand_in": str(int(stand_in))}
        schema = pa.schema(
            [
                pa.field("path", pa.string(), nullable=False),
                pa.field("size", pa.int64()),
                pa.field("modified", pa.int64()),
                pa.field("vector", pa.list_(pa.float32(), dimension)),
                pa.field("reason", pa.string()),
                pa.field("version", pa.int64()),
                pa.field("vector_space", pa.string()),
            ],
            metadata=about,
        )
        name = PREFIX + re.sub(r"[^A-Za-z0-9_.-]", "_", vector_space)
        table = SpaceTable(self._database.create_table(name, schema=schema, exist_ok=True))
        if self.current() is None:
            self.switch(table)
        return table

    def tables(self) -> list[SpaceTable]:
        names = sorted(self._database.list_tables().tables)
        return [SpaceTable(self._database.open_table(name)) for name in names]

    def current(self) -> SpaceTable | None:
        """The table that searches read, or None before the first photo."""
        try:
            name = json.loads(self._pointer.read_text())["table"]
        except FileNotFoundError:
            return None
        return SpaceTable(self._database.open_table(name))

    def switch(self, table: SpaceTable) -> None:
        """Make further searches read this table."""
        draft = self._pointer.with_suffix(".draft")
        draft.write_text(json.dumps({"table": table.name, "vector_space": table.vector_space}))
        os.replace(draft, self._pointer)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the write lock; raises `IndexProblem` if another writer has it."""
        with (self._folder / "writing.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise IndexProblem(
                    f"another process is writing to {self._folder}: let it finish, or stop it"
                ) from None
            yield

    @property
    def _pointer(self) -> Path:
        return self._folder / "current.json"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
