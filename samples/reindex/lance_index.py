"""An index in LanceDB: one table per vector space."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa

from tables import Index, WrongSpaceError

__all__ = ["LanceIndex"]


class LanceIndex(Index):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # Each read sees all earlier writes of other processes if this interval is 0.
        self._database = lancedb.connect(folder, read_consistency_interval=datetime.timedelta(0))

    def names(self, space: str) -> list[str]:
        table = self._table(space)
        if table is None:
            return []
        rows = table.search().select(["name"]).limit(table.count_rows() + 1).to_arrow()
        return [str(name) for name in rows.column("name").to_pylist()]

    def append(self, space: str, names: Sequence[str], vectors: np.ndarray) -> None:
        table = self._table(space)
        if table is None:
            fields = [
                pa.field("name", pa.string(), nullable=False),
                pa.field("vector", pa.list_(pa.float32(), vectors.shape[1])),
            ]
            schema = pa.schema(fields, metadata={"vector_space": space})
            table = self._database.create_table(
                self.table_name(space), schema=schema, exist_ok=True
            )
        rows = [{"name": name, "vector": row} for name, row in zip(names, vectors, strict=True)]
        merge = table.merge_insert("name").when_not_matched_insert_all()
        merge.execute(pa.Table.from_pylist(rows, table.schema))

    def nearest(self, space: str, vector: np.ndarray, count: int) -> list[tuple[str, float]]:
        table = self._table(space)
        if table is None:
            return []
        query = table.search(vector, vector_column_name="vector").metric("cosine")
        found = query.select(["name", "_distance"]).limit(count).to_arrow()
        names, distances = (found.column(name).to_pylist() for name in ("name", "_distance"))
        return [(name, 1.0 - far) for name, far in zip(names, distances, strict=True)]

    def _table(self, space: str) -> Any:
        name = self.table_name(space)
        if name not in self._database.list_tables().tables:
            return None
        table = self._database.open_table(name)
        if table.schema.metadata[b"vector_space"].decode() != space:
            raise WrongSpaceError(f"table {name} does not hold vectors of {space}")
        return table
