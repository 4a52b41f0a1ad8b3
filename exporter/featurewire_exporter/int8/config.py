"""Settings of the 8-bit network. Imports no TensorFlow, because the command line needs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAMPLES_ONLY = (
    "--int8 without --calibration-images calibrates with a few samples; give a folder of a few "
    "hundred pictures similar to those you will embed"
)


@dataclass(frozen=True, kw_only=True)
class Int8Config:
    """The pictures to calibrate with, and the limits of the gate."""

    images: Path | None = None
    """A folder of pictures similar to those that will be embedded; None: the samples."""
    min_cosine: float = 0.99
    """Minimum of the median cosine between vectors in 8 bits and in float32."""
    min_overlap_at_10: float = 0.97
    """Minimum fraction of the ten nearest that both have in common."""
    max_recall_loss: float = 0.005
    """Maximum loss of the crops' recall@1 compared with float32."""
    min_float32_recall_at_1: float = 0.5
    """Minimum fraction of crops that find their picture in float32. With pictures that look alike
    to the model, a loss could not show."""
    any_processor: bool = False
    """Whether the network must also run on processors without VNNI, even if this one has it."""


def int8_line(about: Mapping[str, Any]) -> str:
    """The manifest's entry about the 8-bit network, as text."""
    gate = about["gate"]
    return (
        f"8 bits ({about['setting']}; {about['calibration']['images']} pictures to calibrate): "
        f"cosine {gate['cosine']:.4f}, overlap@10 {gate['overlap_at_10']:.3f}, recall@1 "
        f"{gate['recall_at_1']:.4f} (float32 {gate['float32_recall_at_1']:.4f}) of "
        f"{gate['queries']} crops"
    )
