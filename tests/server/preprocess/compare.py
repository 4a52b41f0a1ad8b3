"""Compares the preprocessing without TensorFlow with the exported graph, file by file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from featurewire_exporter.preprocess import PreprocessConfig
from featurewire_server.preprocess import Preprocess, RefusedImage
from tests.exporter.preprocess.images import served

WEBP = PreprocessConfig(height=61, width=97, max_pixels=1 << 22, webp=True)
"""The size of many generated pictures, whose decoded pixels are then not resized."""

TOLERANCE = 3e-5
"""Of pixels in [0, 1]."""

BATCH = 32


@dataclass(frozen=True)
class Comparison:
    name: str
    data: bytes
    graph_status: int
    status: int
    difference: float
    """Of the pixels, at most; 0 if one of the two refuses the file."""

    @property
    def agrees(self) -> bool:
        return self.status == self.graph_status and self.difference <= TOLERANCE


def preprocess_for(config: PreprocessConfig) -> Callable[[bytes], tuple[np.ndarray | None, int]]:
    """Pixels and status of one file, without TensorFlow."""
    preprocess = Preprocess({"preprocess": config.as_manifest()})

    def pixels(image: bytes) -> tuple[np.ndarray | None, int]:
        try:
            return preprocess.pixels(image), 0
        except RefusedImage as refused:
            return None, refused.status

    return pixels


def compared(
    files: Sequence[tuple[str, bytes]], config: PreprocessConfig = WEBP
) -> Iterator[Comparison]:
    without = preprocess_for(config)
    for at in range(0, len(files), BATCH):
        batch = files[at : at + BATCH]
        images, statuses = served(config)([data for _, data in batch])
        for (name, data), image, expected in zip(batch, images, statuses, strict=True):
            pixels, status = without(data)
            both = pixels is not None and expected == 0
            difference = float(np.abs(pixels - image).max()) if both else 0.0
            yield Comparison(name, data, int(expected), status, difference)
