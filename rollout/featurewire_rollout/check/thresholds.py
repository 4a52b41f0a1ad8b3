"""What a version has to keep, to pass."""

from __future__ import annotations

import sys
from dataclasses import dataclass

__all__ = ["STRICTNESS", "Thresholds"]

MIN_POSITIVE = 1e-9
"""Of values that have to be above 0."""
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
"""The least and the largest value of each limit, and what it is."""


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Limits of the measures. A version fails when one is surely broken and passes when all are
    surely kept. Raises `ValueError`."""

    min_cosine_median: float = 0.995
    """Of an image's two vectors, in the median. An image counts with the lower cosine of the
    whole image and of its crop."""
    min_cosine: float = 0.995
    """The same at the 5th percentile: all but one image in 20 are above it."""
    min_overlap: float = 0.95
    """Share of an image's ten nearest neighbours that stay."""
    max_recall_loss: float = 0.05
    """By how much fewer crops find their image when new crops search the old index."""
    min_rank_correlation: float = 0.9
    """Of an image's similarities to all others, before and after."""
    max_norm_change: float = 0.05
    """By how much vectors get longer or shorter, in the median."""
    max_latency_ratio: float = 1.5
    """Canary's latency by stable's for the same image, in the median."""
    max_error_increase: float = 0.05
    """By how much the share of images without a vector rises."""
    same_cosine: float = 0.999
    """From this 5th percentile on, two versions are called the same space."""
    error_rate: float = 0.05
    """At most so often does `check` say fail of a version that keeps all limits, and at most so
    often does it say pass of one that breaks a limit."""

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
