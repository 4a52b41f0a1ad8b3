"""Rows as a `.parquet` file. Only this module needs `pyarrow`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from featurewire._cli.formats import START_OVER
from featurewire._cli.journal import OutputError
from featurewire._cli.rows import Origin, Row

ROW_GROUP = 4096  # rows: 24 MiB of 1536 floats
_ORIGIN_COLUMNS = ["path", "model", "version", "vector_space"]


def require_pyarrow() -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise OutputError(
            ".parquet needs pyarrow; pip install pyarrow, or use .npy or .jsonl"
        ) from None


class Parquet:
    """`FILE.parquet`.

    Columns: `path` string, `model` string, `version` int64, `vector_space` string (null if
    unknown), `vector` fixed-size list of float32.
    """

    def __init__(self, path: Path) -> None:
        require_pyarrow()
        self.paths = [path]

    def conflict(self) -> None:
        """None, because no other format uses this file name."""

    def read(self, *, vectors: bool, limit: int | None) -> Iterator[Row]:
        columns = [*_ORIGIN_COLUMNS, "vector"] if vectors else _ORIGIN_COLUMNS
        return islice(_rows(self.paths[0], columns), limit)

    # `count` is for arrays, whose header holds the shape.
    def write(self, paths: list[Path], rows: Iterable[Row], *, count: int, dimension: int) -> None:  # noqa: ARG002
        """Write the rows, one row group at a time."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema(
            [
                pa.field("path", pa.string(), nullable=False),
                pa.field("model", pa.string(), nullable=False),
                pa.field("version", pa.int64(), nullable=False),
                pa.field("vector_space", pa.string()),
                pa.field("vector", pa.list_(pa.float32(), dimension), nullable=False),
            ]
        )
        remaining = iter(rows)
        with (
            paths[0].open("wb") as file,
            # No dictionary for the vectors: floats rarely repeat, so it only costs time.
            pq.ParquetWriter(file, schema, use_dictionary=_ORIGIN_COLUMNS) as writer,
        ):
            while group := list(islice(remaining, ROW_GROUP)):
                vectors = np.concatenate([row.vector for row in group if row.vector is not None])
                columns = [
                    pa.array([row.path for row in group]),
                    pa.array([row.origin.model for row in group]),
                    pa.array([row.origin.version for row in group], pa.int64()),
                    pa.array([row.origin.vector_space for row in group], pa.string()),
                    pa.FixedSizeListArray.from_arrays(pa.array(vectors), dimension),
                ]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _rows(path: Path, columns: list[str]) -> Iterator[Row]:
    for batch in _batches(path, columns):
        vectors: Any = [None] * batch.num_rows
        if "vector" in columns:
            vectors = batch.column("vector").flatten().to_numpy().reshape(batch.num_rows, -1)
        for row, vector in zip(batch.select(_ORIGIN_COLUMNS).to_pylist(), vectors, strict=True):
            yield Row(row["path"], _origin(row), vector)


def _batches(path: Path, columns: list[str]) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            missing = {*_ORIGIN_COLUMNS, "vector"} - set(file.schema_arrow.names)
            if missing:
                raise OutputError(
                    f"{path} has no column {sorted(missing)[0]}: featurewire embed did not write "
                    f"it; {START_OVER}"
                )
            yield from file.iter_batches(ROW_GROUP, columns=columns)
    except pa.ArrowInvalid as error:
        raise OutputError(f"{path} cannot be read ({error}); {START_OVER}") from error


def _origin(row: dict[str, Any]) -> Origin:
    return Origin(model=row["model"], version=row["version"], vector_space=row["vector_space"])
