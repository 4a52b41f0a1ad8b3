"""What a bridge is asked to be. Imports no TensorFlow: the command line is parsed by it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class BridgeConfig:
    """What a bridge is made from, and what it must keep."""

    versions: tuple[Path, ...]
    """Directories of older versions: one bridge each."""
    images: Path
    """A folder of pictures such as the index holds."""
    max_images: int = 2000
    """Of more pictures, so many are drawn."""
    views: int = 4
    """Of each picture: itself and crops."""
    min_recall_at_1: float = 0.8
    """Share of re-embedding's recall@1 that bridged queries must keep."""
    min_recall_at_10: float = 0.95
