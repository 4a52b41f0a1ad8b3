"""The settings of the preprocessing of a version.

Nothing here imports TensorFlow: the `export` command reads these defaults while it parses.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

RESIZE_METHODS = ("bilinear", "bicubic", "lanczos3")

STATUS = {0: "ok", 1: "empty", 2: "unsupported", 3: "too_large", 4: "corrupt"}
"""Names of the values of `status`."""

OK, EMPTY, UNSUPPORTED, TOO_LARGE, CORRUPT = STATUS

MIN_TENSORFLOW = {False: "2.16", True: "2.20"}
"""The oldest TensorFlow (Serving) whose ops run the graph, by `PreprocessConfig.webp`."""

ALGORITHM_REVISION = 2
"""Raised whenever the same settings begin to give other pixels: it is part of `vector_space`."""

SCALED_DECODE = {8: 1.25, 4: 1.5, 2: 1.5}
"""Ratios by which a JPEG may be scaled down in its decode, each with the margin that must be left.

The largest ratio is taken at which each side of the decoded image, after the central crop, is
still at least this many times its target. 1/8 is allowed a smaller margin than the others
because it spares the most.
"""

LEVEL_SHIFT = 0.45
"""How far, in levels of 255, TensorFlow's full decode is below an exact one in Y, Cb and Cr.

Its fast inverse transform rounds down. Scaled decodes are exact and are lowered by as much, so
that one photo has the same pixels at every size.
"""

MAX_IMAGE_SIDE = 65_535
"""Pixels; an image with a longer side is `too_large`. No JPEG or GIF has one."""

MAX_SCANS = 32
"""How many scans a JPEG of `max_pixels` may have. One of several components counts as several.
Encoders write about 14 so counted, and 24 for CMYK.

Each of them costs work for every pixel, so a smaller image may have more in proportion, up to
MAX_SCANS_EVER. Beyond that it is `too_large`.
"""

MAX_SCANS_EVER = 512

MAX_INPUT = 65_535
"""The largest number of a module's input: that of white in 16 bits."""

MAX_TARGET_SIDE = 4096
"""Pixels; the longest side of a network's input."""


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig:
    """Settings of the graph that turns encoded images into the network's input."""

    height: int
    """Rows of the network's input, pixels."""

    width: int
    """Columns of the network's input, pixels."""

    resize_method: str = "bilinear"
    """One of `RESIZE_METHODS`."""

    antialias: bool = True
    """Low-pass filter while shrinking. Off, pixels are those of plain `tf.image.resize`."""

    central_crop: float = 1.0
    """Share of each side that is kept, around the middle, before resizing; in (0, 1]."""

    max_pixels: int = 1 << 26
    """Width times height above which an image is `too_large`: 64 Mi, 8192 x 8192."""

    max_image_bytes: int = 32 << 20
    """Encoded bytes above which an image is `too_large`: 32 MiB."""

    exif_orientation: bool = True
    """Turn and mirror the image as its EXIF orientation says."""

    input_range: tuple[float, float] = (0.0, 1.0)
    """The numbers that black and white have in the module's input. Pixels stay in [0, 1] up to
    the network, which scales them."""

    webp: bool = False
    """Decode WebP too, with an op that TensorFlow before `MIN_TENSORFLOW[True]` lacks."""

    def validate(self) -> None:
        """Raises ValueError, one line that names the setting, for a value that cannot work."""
        for name in ("height", "width"):
            _check_integer(name, getattr(self, name), 1, MAX_TARGET_SIDE)
        if self.resize_method not in RESIZE_METHODS:
            known = ", ".join(RESIZE_METHODS)
            raise ValueError(f"resize_method is {self.resize_method!r}; choose one of {known}")
        crop = self.central_crop
        if isinstance(crop, bool) or not isinstance(crop, (int, float)) or not 0 < crop <= 1:
            raise ValueError(f"central_crop is {crop!r}; give a number above 0, at most 1")
        bounds = self.input_range
        numbers = isinstance(bounds, tuple) and all(
            isinstance(each, float | int) for each in bounds
        )
        if not numbers or len(bounds) != 2 or not -MAX_INPUT <= bounds[0] < bounds[1] <= MAX_INPUT:
            raise ValueError(
                f"input_range is {bounds!r}; give the numbers of black and of white, the smaller "
                f"first, such as 0,255, and neither further than {MAX_INPUT} from 0"
            )
        _check_integer("max_pixels", self.max_pixels, 1, 1 << 30)
        _check_integer("max_image_bytes", self.max_image_bytes, 1, 1 << 30)
        for name in ("antialias", "exif_orientation", "webp"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; give True or False")

    @property
    def scaled_decode(self) -> dict[int, float]:
        """`SCALED_DECODE`, or nothing without antialias: its pixels are those of a full decode."""
        return SCALED_DECODE if self.antialias else {}

    def as_manifest(self) -> dict[str, Any]:
        """Every setting, with the rules that no setting changes; goes into `vector_space`."""
        return {
            **asdict(self),
            "central_crop": float(self.central_crop),
            "input_range": [float(bound) for bound in self.input_range],
            "scaled_decode": {str(ratio): margin for ratio, margin in self.scaled_decode.items()},
            "max_image_side": MAX_IMAGE_SIDE,
            "algorithm_revision": ALGORITHM_REVISION,
        }


def _check_integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; give a whole number from {low} to {high}")
