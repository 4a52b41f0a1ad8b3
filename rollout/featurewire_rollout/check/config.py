"""Settings of a check."""

from __future__ import annotations

from dataclasses import dataclass, field

from featurewire_rollout.check.thresholds import Thresholds


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Which images a check sends, and how it judges the vectors."""

    thresholds: Thresholds = field(default_factory=Thresholds)
    max_images: int = 500
    """Maximum number of images; a sample of this size is drawn when there are more."""
    seed: int = 0
    """Seed of the sample, the crops and the intervals."""
    crops: bool = True
    """Also send a crop of each image. Needs Pillow; without it no crops are sent."""
