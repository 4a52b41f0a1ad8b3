"""What two versions made of the same images, row by row."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featurewire.manifest.spaces import vector_space
from featurewire_rollout.decide.view import retention_by_space

__all__ = ["Pairs", "Side", "Vectors"]

Vectors = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Side:
    """One version: what it made of each image. Rows of images without a vector are all NaN."""

    name: str
    """`stable` or `canary`."""
    version: int
    vectors: Vectors
    """`(N, dimension)`"""
    latencies: npt.NDArray[np.float64]
    """`(N,)`, seconds from request to reply, one request at a time."""
    errors: dict[int, str] = field(default_factory=dict)
    """By row: why the image gave no vector, such as `corrupt`."""
    crops: Vectors | None = None
    """`(N, dimension)`: of a part of each image. None where no crops were made."""
    manifest: dict[str, Any] | None = None
    """None for a version that carries none."""

    @property
    def vector_space(self) -> str | None:
        return vector_space(self.manifest)

    @property
    def bridges(self) -> dict[str, float]:
        """See `retention_by_space`."""
        return retention_by_space(self.manifest)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The same N images through both versions."""

    model: str
    names: tuple[str, ...]
    """Of the images, N."""
    stable: Side
    canary: Side
    bridged: Side | None = None
    """What canary's bridge to stable's space made of them. None where it has no such bridge."""
    duplicates: int = 0
    """Images that were left out because another has the same bytes."""
    left_out: int = 0
    """Images beyond the limit."""
    files: tuple[Path, ...] = ()
    """Where the images are, N."""
    thumbnails: dict[int, str] = field(default_factory=dict)
    """By row: `data:` URIs, for people."""

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """`(N,)`: the rows that have a vector on both sides."""
        missing = [np.isnan(side.vectors).any(axis=1) for side in (self.stable, self.canary)]
        return np.logical_not(missing[0] | missing[1])

    @property
    def same_dimension(self) -> bool:
        return bool(self.stable.vectors.shape[1] == self.canary.vectors.shape[1])
