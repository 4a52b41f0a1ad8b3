"""The preprocessing settings of a version, read from its manifest.

The limits below are not in the manifest. They are the exporter's, and a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

ALGORITHM_REVISION = 2
"""The revision of the pixels that this package reproduces."""

MAX_SCANS = 32
"""Maximum number of scans of a JPEG of `max_pixels`; smaller images may have more."""

MAX_SCANS_EVER = 512

LEVEL_SHIFT = 0.45
"""Levels of 255 by which TensorFlow's full JPEG decode is below an exact one in Y, Cb and Cr."""

METHODS = ("bilinear", "bicubic", "lanczos3")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`manifest["preprocess"]`. `input_range` is missing, because the network applies it."""

    height: int
    width: int
    resize_method: str
    antialias: bool
    central_crop: float
    max_pixels: int
    max_image_bytes: int
    exif_orientation: bool
    webp: bool
    max_image_side: int
    scaled_decode: Mapping[int, float] = field(default_factory=dict)
    """Ratios at which a JPEG may be decoded, each with the margin that must be left."""

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Settings:
        """Raises ValueError, a clause about the version, if its pixels cannot be reproduced."""
        given = manifest.get("preprocess")
        if not isinstance(given, dict):
            raise ValueError("its manifest has no preprocessing settings")
        revision = given.get("algorithm_revision")
        if revision != ALGORITHM_REVISION:
            raise ValueError(
                f"its preprocessing has revision {revision}, and this server reproduces "
                f"revision {ALGORITHM_REVISION}"
            )
        try:
            scaled = {int(ratio): float(least) for ratio, least in given["scaled_decode"].items()}
            values = {each.name: given[each.name] for each in fields(cls)}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"its preprocessing settings cannot be read: {error!r}") from error
        settings = cls(**values | {"scaled_decode": scaled})
        numbers = ("height", "width", "max_pixels", "max_image_bytes", "max_image_side")
        for name in numbers:
            if not isinstance(getattr(settings, name), int):
                raise ValueError(f"its preprocessing settings cannot be read: {name}")
        if settings.resize_method not in METHODS or not set(scaled) <= {2, 4, 8}:
            raise ValueError("its preprocessing has a method that this server does not know")
        return settings
