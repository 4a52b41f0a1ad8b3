"""The stand-in module as tests use it, small or at full size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StandIn:
    """A stand-in and its export."""

    module: Path
    """In TF1 Hub format."""
    base_path: Path
    """Holds the export as version 1."""
    dimension: int
    convolutions: int
