"""From the images of `embed_batch` to its `EmbeddingBatch`, by one request or by several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from featurewire._config import StreamConfig
from featurewire._embedding import EmbeddingBatch, Result
from featurewire._errors import ImageError
from featurewire._images import Buffer
from featurewire._reply import Rows

__all__ = ["batch_of_results", "batch_of_rows", "one_request"]


def one_request(images: Sequence[Buffer | ImageError], config: StreamConfig) -> list[Buffer] | None:
    """The images, where a stream would send them all as one request; else None."""
    loaded = [image for image in images if not isinstance(image, ImageError)]
    if not len(loaded) == len(images) <= config.images_per_request:
        return None
    if len(loaded) > 1 and sum(map(len, loaded)) > config.bytes_per_request:
        return None
    return loaded


def batch_of_rows(rows: Rows, model: str) -> EmbeddingBatch:
    """Of one reply."""
    vectors, errors = rows.vectors.copy(), {}
    if rows.reasons:
        errors = {row: rows.error(row) for row in rows.reasons}
        vectors[list(errors)] = np.nan
    return EmbeddingBatch(vectors=vectors, version=rows.version, errors=errors, model=model)


def batch_of_results(
    results: Sequence[Result], *, model: str, version: int, dimension: int
) -> EmbeddingBatch:
    """Of several replies, all by one version."""
    vectors = np.full((len(results), dimension), np.nan, np.float32)
    errors = {}
    for row, result in enumerate(results):
        if result.embedding is not None:
            vectors[row] = result.embedding.vector
        elif result.error is not None:
            errors[row] = result.error
    return EmbeddingBatch(vectors=vectors, version=version, errors=errors, model=model)
