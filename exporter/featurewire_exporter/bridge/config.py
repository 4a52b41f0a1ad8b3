"""Settings of a bridge. Imports no TensorFlow, because the command line is parsed with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class BridgeConfig:
    """The inputs of a bridge, and the recall that it must keep."""

    versions: tuple[Path, ...]
    """Folders of older versions; each gets a bridge."""
    images: Path
    """A folder of pictures similar to those in the index."""
    max_images: int = 2000
    """Maximum number of pictures; from a larger folder this many are drawn."""
    views: int = 4
    """Views per picture: the picture itself and crops of it."""
    min_recall_at_1: float = 0.8
    """Minimum recall@1 of bridged queries, as a fraction of re-embedding's."""
    min_recall_at_10: float = 0.95
