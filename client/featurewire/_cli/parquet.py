"""A journal's rows as a `.parquet` file, and back: the one place that needs `pyarrow`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from featurewire._cli.journal import ArrayJournal, OutputError
from featurewire._cli.rows import Origin, decode

ROW_GROUP = 4096  # rows: 24 MiB of 1536 floats
_ORIGIN_COLUMNS = ["path", "model", "version", "vector_space"]


def require_pyarrow() -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise OutputError(
            ".parquet needs pyarrow; pip install pyarrow, or use .npy or .jsonl"
        ) from None


def write_parquet(target: Path, *, vectors: Path, index: Path) -> None:
    """Write the journal's rows to `target`, a row group at a time, and see that they are on disk.

    Columns: `path` string, `model` string, `version` int64, `vector_space` string (null where
    unknown), `vector` fixed-size list of float32.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    array = np.load(vectors, mmap_mode="r")
    dimension = array.shape[1]
    schema = pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("model", pa.string(), nullable=False),
            pa.field("version", pa.int64(), nullable=False),
            pa.field("vector_space", pa.string()),
            pa.field("vector", pa.list_(pa.float32(), dimension), nullable=False),
        ]
    )
    with target.open("wb") as file:
        # Floats do not repeat: a dictionary of them only costs time.
        with pq.ParquetWriter(file, schema, use_dictionary=_ORIGIN_COLUMNS) as writer:
            for start, rows in _groups(index):
                part = np.ascontiguousarray(array[start : start + len(rows)]).reshape(-1)
                columns = [
                    pa.array([path for path, _ in rows]),
                    pa.array([origin.model for _, origin in rows]),
                    pa.array([origin.version for _, origin in rows], pa.int64()),
                    pa.array([origin.vector_space for _, origin in rows], pa.string()),
                    pa.FixedSizeListArray.from_arrays(pa.array(part), dimension),
                ]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))
        file.flush()
        os.fsync(file.fileno())


def load_parquet(path: Path, on_row: Callable[[str, Origin], None]) -> int:
    """Read where each row came from; return how many rows there are."""
    count = 0
    for batch in _batches(path, _ORIGIN_COLUMNS):
        for row in batch.to_pylist():
            on_row(row["path"], _origin(row))
            count += 1
    return count


def copy_parquet(path: Path, journal: ArrayJournal) -> None:
    """Append every row of the file to the journal."""
    for batch in _batches(path, [*_ORIGIN_COLUMNS, "vector"]):
        vectors = batch.column("vector")
        values = vectors.flatten().to_numpy().reshape(len(vectors), -1)
        origins = batch.select(_ORIGIN_COLUMNS).to_pylist()
        for row, vector in zip(origins, values, strict=True):
            journal.append(row["path"], _origin(row), vector)


def _batches(path: Path, columns: list[str]) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            missing = {*_ORIGIN_COLUMNS, "vector"} - set(file.schema_arrow.names)
            if missing:
                raise OutputError(
                    f"{path} has no column {sorted(missing)[0]}: featurewire embed did not write "
                    "it; choose another --output or start over with --overwrite"
                )
            yield from file.iter_batches(ROW_GROUP, columns=columns)
    except pa.ArrowInvalid as exc:
        raise OutputError(
            f"{path} cannot be read ({exc}); choose another --output or start over with --overwrite"
        ) from exc


def _origin(row: dict[str, Any]) -> Origin:
    return Origin(model=row["model"], version=row["version"], vector_space=row["vector_space"])


def _groups(index: Path) -> Iterator[tuple[int, list[tuple[str, Origin]]]]:
    start = 0
    with index.open("rb") as lines:
        while rows := [decode(line, vector=False) for line in islice(lines, ROW_GROUP)]:
            yield start, rows
            start += len(rows)
