"""Computes the vectors of pictures and their crops with a published version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from featurewire_exporter.errors import ExportError, one_line
from featurewire_exporter.quality.pictures import views
from featurewire_exporter.version.artifact import ArtifactSession

BATCH = 16
LOG_EVERY = 50
"""Report progress each time this many pictures are done."""
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddedPictures:
    """Vectors of every picture's views."""

    vectors: np.ndarray
    """float32 `[pictures, views, dimension]`; NaN for a view that does not decode."""


def embed_pictures(
    directory: Path, pictures: Sequence[bytes], count: int, say: Say, name: str
) -> EmbeddedPictures:
    """Embed `count` views of each picture with the version in `directory`.

    `name`: the version's name in the messages to `say`. Raises `ExportError`."""
    found: dict[tuple[int, int], np.ndarray] = {}
    waiting: dict[tuple[int, int], bytes] = {}
    try:
        with ArtifactSession(directory) as session:

            def flush() -> None:
                images = np.array([*waiting.values()], dtype=object)
                vectors = session.run("serving_default", image_bytes=images)["features"]
                found.update(zip(waiting, vectors, strict=True))
                waiting.clear()

            for row, picture in enumerate(pictures):
                for view, data in enumerate(views(picture, count)):
                    waiting[row, view] = data
                    if len(waiting) == BATCH:
                        flush()
                if (row + 1) % LOG_EVERY == 0 or row + 1 == len(pictures):
                    say(f"Embedding with {name}: {row + 1} of {len(pictures)} pictures")
            if waiting:
                flush()
    except (tf.errors.OpError, OSError, ValueError, KeyError) as error:
        raise ExportError(f"{directory} cannot be run ({one_line(error)})") from error
    dimension = len(next(iter(found.values()), np.empty(1)))
    vectors = np.full((len(pictures), count, dimension), np.nan, np.float32)
    for place, vector in found.items():
        vectors[place] = vector
    return EmbeddedPictures(vectors=vectors)
