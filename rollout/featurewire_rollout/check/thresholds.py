"""What a version has to keep, to pass."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Thresholds"]


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
        for name in ("min_cosine_median", "min_cosine", "min_rank_correlation", "same_cosine"):
            if not -1 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a cosine or correlation, from -1 to 1")
        for name in ("min_overlap", "max_recall_loss", "max_error_increase"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share, from 0 to 1")
        if not 0 < self.max_norm_change < 1:
            raise ValueError("max_norm_change is a share above 0 and below 1")
        if not self.max_latency_ratio > 0:
            raise ValueError("max_latency_ratio is above 0")
        if not 0 < self.error_rate <= 0.2:
            raise ValueError("error_rate is above 0 and at most 0.2")
