"""What a quantised network is asked to be. Imports no TensorFlow: the command line needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAMPLES_ONLY = (
    "--int8 without --calibration-images calibrates with a few samples; give a folder of some "
    "hundreds of pictures such as will be embedded"
)


@dataclass(frozen=True, kw_only=True)
class Int8Config:
    """What to calibrate with, and what the gate asks for."""

    images: Path | None = None
    """A folder of pictures such as will be embedded; None: the samples."""
    min_cosine: float = 0.99
    """Between vectors in 8 bits and in float32, in the median."""
    min_overlap_at_10: float = 0.97
    """Share of the ten nearest that both have in common."""
    max_recall_loss: float = 0.005
    """By which recall@1 of crops may be below float32's."""
    min_float32_recall_at_1: float = 0.5
    """How often crops must find their picture in float32: with pictures that are all alike, or that
    the model cannot tell apart, no loss would show. Half of them, as for a bridge."""
    any_processor: bool = False
    """Whether it has to run on processors without VNNI, too, though it is made on one with it."""


def int8_line(about: Mapping[str, Any]) -> str:
    """What the manifest says of a quantised network, for people."""
    gate = about["gate"]
    return (
        f"8 bits ({about['setting']}; {about['calibration']['images']} pictures to calibrate): "
        f"cosine {gate['cosine']:.4f}, overlap@10 {gate['overlap_at_10']:.3f}, recall@1 "
        f"{gate['recall_at_1']:.4f} (float32 {gate['float32_recall_at_1']:.4f}) of "
        f"{gate['queries']} crops"
    )
