"""The weights of resizing, computed in float32 as TensorFlow's operations compute them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_RADIUS = {"bilinear": 1.0, "bicubic": 2.0, "lanczos3": 3.0}

_LEAST_SUM = 1000 * np.finfo(np.float32).tiny


@dataclass(frozen=True, eq=False)
class Spans:
    """For each result, the weighted sum of neighbours that makes it."""

    starts: np.ndarray
    """int32 [size]: the first neighbour. `starts + count` is at most the source's length."""
    weights: np.ndarray
    """float32 [size, count]."""


def spans(
    length: int, size: int, scale: float, offset: float, method: str, *, antialias: bool
) -> Spans:
    """The spans of `tf.image.resize`, from `length` pixels to `size`."""
    one, half = np.float32(1), np.float32(0.5)
    inverse = one / np.float32(scale)
    shift = -inverse * np.float32(offset)
    kernel_scale = max(inverse, one) if antialias else one
    reach = np.float32(_RADIUS[method]) * kernel_scale
    middle = (np.arange(size, dtype=np.float32) + half) * inverse + shift
    if method == "bicubic" and not antialias:
        # `ResizeBicubic` looks its weights up in a table of 1024 places between two pixels.
        middle = (np.arange(size, dtype=np.float32) + half) * (
            np.float32(length) / np.float32(size)
        )
        whole = np.floor(middle - half)
        middle = whole + np.rint((middle - half - whole) * 1024) / np.float32(1024) + half
    starts = np.clip(np.ceil(middle - reach - half).astype(np.int64), 0, length - 1)
    ends = np.clip(np.floor(middle + reach - half).astype(np.int64), 0, length - 1) + 1
    inside = (middle >= 0) & (middle <= length)
    count = int((ends - starts).max(initial=1))
    at = starts[:, np.newaxis] + np.arange(count)
    place = at.astype(np.float32) + half - middle[:, np.newaxis]
    weights = _kernel(method, np.abs(place * (one / kernel_scale)))
    weights[(at >= ends[:, np.newaxis]) | ~inside[:, np.newaxis]] = 0
    total = np.zeros(size, np.float32)
    for column in weights.T:  # in this order, because float32 sums depend on it
        total += column
    small = np.abs(total) < _LEAST_SUM
    weights *= (one / np.where(small, one, total))[:, np.newaxis]
    weights[small] = 0
    # Move the last spans back, so that none extends beyond the source.
    first = np.minimum(starts, length - count)
    moved = (starts - first)[:, np.newaxis]
    source = np.arange(count) - moved
    weights = np.where(source >= 0, np.take_along_axis(weights, source.clip(0), 1), 0)
    return Spans(first.astype(np.int32), weights.astype(np.float32))


def _kernel(method: str, x: np.ndarray) -> np.ndarray:
    """float32: the kernel's value at distances float32, in its own units."""
    if method == "bilinear":
        return np.maximum(np.float32(1) - x, np.float32(0))
    if method == "bicubic":
        near = ((1.5 * x - 2.5) * x) * x + 1
        far = ((-0.5 * x + 2.5) * x - 4) * x + 2
        return np.where(x >= 2, 0, np.where(x >= 1, far, near)).astype(np.float32)
    turn = np.float32(np.pi) * np.maximum(x, np.float32(1e-3))
    value = 3 * np.sin(turn) * np.sin(turn / 3) / (turn * turn)
    return np.where(x > 3, 0, np.where(x <= 1e-3, 1, value)).astype(np.float32)
