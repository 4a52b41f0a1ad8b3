"""The limits of a check."""

from __future__ import annotations

import sys
from dataclasses import dataclass

MIN_POSITIVE = 1e-9
"""Minimum of values that must be above 0."""
COSINE = (-1.0, 1.0, "a cosine, from -1 to 1")
CORRELATION = (-1.0, 1.0, "a correlation, from -1 to 1")
SHARE = (0.0, 1.0, "a share, from 0 to 1")
RANGES = {
    "min_cosine_median": COSINE,
    "min_cosine": COSINE,
    "min_overlap": SHARE,
    "max_recall_loss": SHARE,
    "min_rank_correlation": CORRELATION,
    "max_norm_change": (MIN_POSITIVE, 1 - MIN_POSITIVE, "a share, above 0 and below 1"),
    "max_latency_ratio": (MIN_POSITIVE, sys.float_info.max, "a ratio above 0"),
    "max_error_increase": SHARE,
    "same_cosine": COSINE,
    "error_rate": (MIN_POSITIVE, 0.2, "a rate, above 0 and at most 0.2"),
}
"""Minimum, maximum and description of each limit."""


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Limits of the measures.

    A version fails if one limit is certainly broken, and passes if all are certainly kept. Raises
    `ValueError` for a limit outside its range.
    """

    min_cosine_median: float = 0.995
    """Median over images of the cosine of the two vectors of an image, or of its crop if lower."""
    min_cosine: float = 0.995
    """The same at the 5th percentile, which 19 of 20 images exceed."""
    min_overlap: float = 0.95
    """Fraction of an image's ten nearest neighbours that stay."""
    max_recall_loss: float = 0.05
    """Loss in the fraction of crops that find their image, if new crops search the old index."""
    min_rank_correlation: float = 0.9
    """Spearman's correlation of an image's similarities to all others, before and after."""
    max_norm_change: float = 0.05
    """Median relative change of a vector's length."""
    max_latency_ratio: float = 1.5
    """Median ratio of canary's latency to stable's for the same image."""
    max_error_increase: float = 0.05
    """Increase of the fraction of images without a vector."""
    same_cosine: float = 0.999
    """Minimum 5th percentile of the cosine for the verdict `same space`."""
    error_rate: float = 0.05
    """Maximum probability that a version fails although it keeps all limits, and that a version
    passes although it breaks one."""

    def __post_init__(self) -> None:
        for name, (least, largest, meaning) in RANGES.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or not least <= value <= largest:
                raise ValueError(f"{name} is {meaning}, not {value}")


STRICTNESS: dict[str, dict[str, float]] = {
    "exact": {"min_cosine_median": 0.999, "min_cosine": 0.999},
    "normal": {},
    "quantised": {"min_cosine_median": 0.95, "min_cosine": 0.9, "min_overlap": 0.8},
}
"""Limits of vectors that differ from the defaults of `Thresholds`, by the value of `--strictness`.

`exact` passes only vectors that are the same but for rounding, `quantised` also those of a network
in 8 bits.
"""
