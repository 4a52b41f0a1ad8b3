"""Measures what a search loses in 8 bits, with pictures kept out of the calibration."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from featurewire_exporter.errors import ExportError
from featurewire_exporter.int8.config import Int8Config
from featurewire_exporter.quality.recall import overlap, recall, unit


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Results of a search for vectors in 8 bits in an index of float32 vectors."""

    pictures: int
    queries: int
    cosine: float
    """Median cosine between the two vectors of a picture or crop."""
    least_cosine: float
    overlap_at_10: float
    """Fraction of the ten nearest that both vectors of a picture have in common."""
    recall_at_1: float
    """Fraction of crops in 8 bits that find their own picture."""
    float32_recall_at_1: float

    def margin(self, config: Int8Config) -> float:
        """The smallest distance to one of the three limits; negative if a limit is missed."""
        loss = self.float32_recall_at_1 - self.recall_at_1
        return min(
            self.cosine - config.min_cosine,
            self.overlap_at_10 - config.min_overlap_at_10,
            config.max_recall_loss + 1e-9 - loss,
        )

    def require_telling(self, config: Int8Config) -> None:
        """Raises `ExportError` if even float32 does not find the pictures by their crops."""
        if self.float32_recall_at_1 < config.min_float32_recall_at_1:
            raise ExportError(
                "8 bits cannot be tested with these pictures: in float32, "
                f"{self.float32_recall_at_1:.0%} of their crops find them first, and at least "
                f"{config.min_float32_recall_at_1:.0%} are needed; give --calibration-images "
                "pictures that differ from one another and of the kind that the model was "
                "trained on"
            )

    def passes(self, config: Int8Config) -> bool:
        return self.margin(config) >= 0

    def as_manifest(self) -> dict[str, Any]:
        return {
            key: round(value, 5) if isinstance(value, float) else value
            for key, value in asdict(self).items()
        }

    def text(self) -> str:
        return (
            f"cosine {self.cosine:.4f} in the median, {self.least_cosine:.4f} at least; "
            f"overlap@10 {self.overlap_at_10:.3f}; recall@1 {self.recall_at_1:.4f}, "
            f"float32 {self.float32_recall_at_1:.4f}"
        )


def measure(exact: np.ndarray, quantised: np.ndarray) -> Measured:
    """`exact`, `quantised`: float32 `[pictures, 1 + crops, dimension]`, each picture first."""
    pictures, each = exact.shape[:2]
    cosines = (unit(exact) * unit(quantised)).sum(axis=-1)
    index, own = exact[:, 0], np.repeat(np.arange(pictures), each - 1)
    found = [
        recall(vectors[:, 1:].reshape(-1, vectors.shape[-1]), own, index).at_1
        for vectors in (quantised, exact)
    ]
    return Measured(
        pictures=pictures,
        queries=len(own),
        cosine=float(np.median(cosines)),
        least_cosine=float(cosines.min()),
        overlap_at_10=overlap(index, quantised[:, 0], index),
        recall_at_1=found[0],
        float32_recall_at_1=found[1],
    )
