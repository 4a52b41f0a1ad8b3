"""Resizes decoded pixels to the network's size, like the exported graph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from featurewire_server.preprocess.header import Decoded, Header
from featurewire_server.preprocess.orientation import exchanges_sides, upright_steps
from featurewire_server.preprocess.resample import resample
from featurewire_server.preprocess.settings import LEVEL_SHIFT, Settings
from featurewire_server.preprocess.spans import Spans, spans

# Change of red, green and blue for one level of Y, and for one of Cb and Cr (ITU-R BT.601).
_LUMA = np.array([1.0, 1.0, 1.0], np.float32)
_CHROMA = np.array([1.402, -0.344136 - 0.714136, 1.772], np.float32)


@dataclass(frozen=True)
class Side:
    """How one side of a decoded image is resized."""

    first: int
    """The first decoded pixel that is used."""
    last: int
    """The one after the last."""
    size: int
    """The pixels that they become."""
    scale: float
    """The pixels that each of them becomes; a float32."""
    offset: float
    """Where, in the result, the first of them begins (0 or before); a float32."""


@dataclass(frozen=True)
class Plan:
    ratio: int
    """1, 2, 4 or 8: of a scaled decode."""
    rows: Side
    columns: Side
    orientation: int
    shifted: bool
    """Whether a scaled decode is lowered to the levels of a full one."""


def make_plan(header: Header, settings: Settings) -> Plan:
    sides = header.height, header.width
    target = settings.height, settings.width
    if exchanges_sides(header.orientation):
        target = target[::-1]
    kept = [_central(side, settings.central_crop) for side in sides]
    ratio = 1
    for each, margin in sorted(settings.scaled_decode.items()):
        enough = (
            np.float32(extent) >= np.float32(each * margin) * np.float32(size)
            for (_, extent), size in zip(kept, target, strict=True)
        )
        if header.scalable and all(enough):
            ratio = each
    rows, columns = (
        _side(start, extent, size, ratio)
        for (start, extent), size in zip(kept, target, strict=True)
    )
    # The colours of converted CMYK are not corrected.
    return Plan(ratio, rows, columns, header.orientation, header.components < 4)


def _central(side: int, share: float) -> tuple[int, int]:
    """Start and extent of the middle `share` of a side, as `tf.image.central_crop` cuts."""
    if share >= 1:
        return 0, side
    cut = min(math.floor(side * ((1 - share) / 2)), (side - 1) // 2)
    return cut, side - 2 * cut


def _side(start: int, extent: int, size: int, ratio: int) -> Side:
    begin, length = np.float32(start) / np.float32(ratio), np.float32(extent) / np.float32(ratio)
    first = np.floor(begin)
    scale = np.float32(size) / length
    return Side(
        int(first),
        int(np.ceil(begin + length)),
        size,
        float(scale),
        float((first - begin) * scale),
    )


def resized(image: Decoded, plan: Plan, settings: Settings) -> np.ndarray:
    """float32 [height, width, 3] in [0, 1], upright, of decoded pixels."""
    rows, columns = (
        _spans(side, settings.resize_method, settings.antialias)
        for side in (plan.rows, plan.columns)
    )
    kept = slice(plan.columns.first, plan.columns.last)
    pixels = resample(image, plan.rows.first, kept, rows, columns)
    if plan.ratio > 1:
        sharpening = np.float32((1 - 1 / plan.ratio**2) / 24)
        pixels = _sharpened(pixels, 1, sharpening, plan.columns)
        pixels = _sharpened(pixels, 0, sharpening, plan.rows)
        if plan.shifted:
            pixels -= _level_shift(image)
    if exchanges_sides(plan.orientation):
        pixels = pixels.transpose(1, 0, 2)
    down, right = upright_steps(plan.orientation)
    pixels = pixels[::down, ::right] * np.float32(1 / 255)
    return np.ascontiguousarray(np.clip(pixels, 0, 1, out=pixels))


@lru_cache(256)
def _spans(side: Side, method: str, antialias: bool) -> Spans:
    return spans(
        side.last - side.first, side.size, side.scale, side.offset, method, antialias=antialias
    )


def _sharpened(pixels: np.ndarray, axis: int, sharpening: np.float32, side: Side) -> np.ndarray:
    """Remove the blur of a scaled decode along an axis, to second order."""
    blur = np.float32(3) * sharpening * np.square(np.float32(side.scale))
    lines = np.moveaxis(pixels, axis, 0)
    means = lines.copy()
    means[1:] += lines[:-1]
    means[:-1] += lines[1:]
    count = np.full((len(lines), 1, 1), 3, np.float32)
    count[0] -= 1
    count[-1] -= 1
    return np.moveaxis((1 + blur) * lines - blur * (means / count), 0, axis)


def _level_shift(image: Decoded) -> np.ndarray:
    """float32 [3]: the levels to subtract from a scaled decode.

    Pixels without colour have no colour that is rounded. One pixel in 64 is enough to estimate
    the fraction of coloured ones.
    """
    sample = image[::8][:, ::8]
    coloured = (sample != sample[:, :, :1]).any(2)
    share = np.float32(coloured.mean())
    return np.asarray(np.float32(LEVEL_SHIFT) * (_LUMA + share * _CHROMA), np.float32)
