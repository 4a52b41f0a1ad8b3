"""One client per worker process, for engines that distribute a job over processes.

A client holds connections, so it cannot be sent to another process. Send the settings instead: each
worker makes its own client on its first images and keeps it.

    # PySpark
    rows = paths.rdd.mapPartitions(lambda part: embed_part(part, TARGET, MODEL, VERSION))

    # Ray Data
    class Embedder:
        def __call__(self, batch):
            rows = list(embed_part(batch["path"], TARGET, MODEL, VERSION))
            return {
                "path": [path for path, _, _ in rows],
                "vector": [vector for _, vector, _ in rows],
                "error": [error for _, _, error in rows],
            }

    vectors = ray.data.from_items(items).map_batches(Embedder, concurrency=4)

Pin the version before the job starts, because an index must not mix vector spaces.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterable, Iterator

import featurewire

Row = tuple[str, list[float] | None, str | None]
"""A path, and its vector or the reason for its absence."""


@functools.cache
def client_of_this_process(target: str, model: str, version: int) -> featurewire.Client:
    return featurewire.Client(target, model=model, version=version)


def embed_part(paths: Iterable[str], target: str, model: str, version: int) -> Iterator[Row]:
    """Embed the images of one partition, in order; a bad image fails alone."""
    client = client_of_this_process(target, model, version)
    for result in client.stream((str(path), pathlib.Path(path)) for path in paths):
        if result.error is not None:
            yield result.key, None, result.error.reason
        else:
            yield result.key, result.unwrap().vector.tolist(), None
