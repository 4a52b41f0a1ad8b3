"""Embeds photos in shards, units of work that are written completely or not at all.

A shard's vectors are one Parquet file, which appears by a rename. A shard with a file is complete,
so repeated jobs and retried tasks skip complete shards, and no photo is written twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import featurewire

SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".bmp"}


@dataclass(frozen=True, kw_only=True)
class Job:
    """The settings of all workers: one version of one model, and the output."""

    server: str
    model: str
    version: int
    vector_space: str
    output: str
    """A folder that all workers see."""


@dataclass(frozen=True)
class Shard:
    paths: tuple[str, ...]

    @property
    def name(self) -> str:
        """A name that depends only on the photos, so that it is the same in every run."""
        return hashlib.sha256("\n".join(self.paths).encode()).hexdigest()[:16]


def begin(server: str, model: str, output: Path, label: str | None = None) -> Job:
    """Pin the version that answers now, or reuse the version of an existing `output`."""
    output.mkdir(parents=True, exist_ok=True)
    file = output / "job.json"
    if file.exists():
        begun = json.loads(file.read_text())
        if begun["model"] != model:
            raise SystemExit(f"{output} has vectors of {begun['model']}: choose another output")
        return Job(**begun | {"server": server, "output": str(output)})
    with featurewire.Client(server, model=model, label=label) as client:
        metadata = client.metadata()
    if metadata.manifest is None:
        raise SystemExit(f"version {metadata.version} of {model} has no manifest: export it again")
    job = Job(
        server=server,
        model=model,
        version=metadata.version,
        vector_space=metadata.manifest["vector_space"],
        output=str(output),
    )
    replace(file, json.dumps(asdict(job)).encode())
    return job


def shards_to_do(photos: Path, job: Job, size: int) -> list[Shard]:
    """The shards of a folder that do not have a file."""
    paths = sorted(str(path) for path in photos.rglob("*") if path.suffix.lower() in SUFFIXES)
    shards = [Shard(tuple(paths[at : at + size])) for at in range(0, len(paths), size)]
    return [shard for shard in shards if not file_of(shard, job).exists()]


def connect(job: Job) -> featurewire.Client:
    """A worker's client, which accepts only the pinned version and its vector space."""
    return featurewire.Client(
        job.server, model=job.model, version=job.version, vector_space=job.vector_space
    )


def embed_shard(shard: Shard, job: Job, client: featurewire.Client) -> int:
    """Write a shard's vectors unless its file exists; returns the number of photos."""
    if not file_of(shard, job).exists():
        rows = list(_rows(shard, job, client))
        schema = pa.schema(
            {
                "path": pa.string(),
                "vector": pa.list_(pa.float32()),
                "error": pa.string(),
                "version": pa.int64(),
                "vector_space": pa.string(),
            }
        )
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, schema), sink)
        replace(file_of(shard, job), sink.getvalue().to_pybytes())
    return len(shard.paths)


def _rows(shard: Shard, job: Job, client: featurewire.Client) -> Iterator[dict[str, object]]:
    """One row per photo, in order; a bad photo has an error instead of a vector."""
    for result in client.stream((path, Path(path)) for path in shard.paths):
        yield {
            "path": result.key,
            "vector": None if result.embedding is None else result.embedding.vector,
            "error": None if result.error is None else result.error.reason,
            "version": job.version,
            "vector_space": job.vector_space,
        }


def file_of(shard: Shard, job: Job) -> Path:
    return Path(job.output, f"part-{shard.name}.parquet")


def replace(file: Path, data: bytes) -> None:
    """Write a file completely or not at all."""
    draft = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    with draft.open("wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())
    draft.rename(file)
