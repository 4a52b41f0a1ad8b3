"""The stand-in module for tests, small or full-size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StandIn:
    """A stand-in and its export."""

    module: Path
    """The module in TF1 Hub format."""
    base_path: Path
    """Base path with the export as version 1."""
    dimension: int
    convolutions: int
