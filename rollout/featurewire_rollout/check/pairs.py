"""The vectors of two versions for the same images, row by row."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featurewire.manifest.spaces import vector_space
from featurewire_rollout.decide.view import retention_by_space

Vectors = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Side:
    """The vectors of one version. The row of an image without a vector is all NaN."""

    name: str
    """`stable` or `canary`."""
    version: int
    vectors: Vectors
    """`(N, dimension)`"""
    latencies: npt.NDArray[np.float64]
    """`(N,)`, seconds from request to reply, one request at a time."""
    errors: dict[int, str] = field(default_factory=dict)
    """The reason why an image has no vector, such as `corrupt`, by row."""
    crops: Vectors | None = None
    """`(N, dimension)`: the vectors of a crop of each image. None without crops."""
    manifest: dict[str, Any] | None = None
    """None for a version without a manifest."""

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
    """Names of the images, N."""
    stable: Side
    canary: Side
    bridged: Side | None = None
    """The vectors from canary's bridge to stable's space. None without such a bridge."""
    duplicates: int = 0
    """Number of images left out because another one has the same bytes."""
    left_out: int = 0
    """Number of images left out because of the limit."""
    files: tuple[Path, ...] = ()
    """Paths of the images, N."""
    thumbnails: dict[int, str] = field(default_factory=dict)
    """Pictures for the page as `data:` URIs, by row."""

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """`(N,)`: whether both sides have a vector."""
        missing = [np.isnan(side.vectors).any(axis=1) for side in (self.stable, self.canary)]
        return np.logical_not(missing[0] | missing[1])

    @property
    def same_dimension(self) -> bool:
        return bool(self.stable.vectors.shape[1] == self.canary.vectors.shape[1])
