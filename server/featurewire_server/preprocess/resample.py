"""Weighted sums of rows and then of columns: compiled loops, or numpy where there are none."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np

from featurewire_server.preprocess.header import Decoded
from featurewire_server.preprocess.spans import Spans

LIBRARY = Path(__file__).with_name("_resample.so")
"""Made while the wheel is built, if there is a C compiler."""

BLOCK_BYTES = 4 << 20
"""Decoded bytes to take at a time from an image that is made in parts."""


def _load() -> Callable[..., None] | None:
    try:
        function = ctypes.CDLL(str(LIBRARY)).resample
    except OSError:
        return None
    size, pointer = ctypes.c_ssize_t, ctypes.c_void_p
    side = (pointer, pointer, size, size)
    function.argtypes = (pointer, size, size, *side, *side, pointer, pointer)
    function.restype = None
    return function


_compiled = _load()


def resample(
    image: Decoded, top: int, kept: slice, rows: Spans, columns: Spans, *, compiled: bool = True
) -> np.ndarray:
    """float32 [rows, columns, 3], of an image's rows from `top` on and its `kept` columns.

    `compiled`: with the compiled loops, where there are any. They release the interpreter's lock.
    """
    sums = _sums_in_c if _compiled and compiled else _sums_in_numpy
    height, taps = rows.weights.shape
    out = np.empty((height, len(columns.starts), 3), np.float32)
    step = max(
        1, BLOCK_BYTES * height // ((kept.stop - kept.start) * 3 * int(rows.starts[-1] + taps))
    )
    for first in range(0, height, step):
        block = slice(first, first + step)
        starts = rows.starts[block]
        begin = int(starts[0])
        source = image[top + begin : top + int(starts[-1]) + taps][:, kept]
        sums(source, Spans(starts - np.int32(begin), rows.weights[block]), columns, out[block])
    return out


def _sums_in_c(source: np.ndarray, rows: Spans, columns: Spans, out: np.ndarray) -> None:
    assert _compiled
    if source.strides[1:] != (3, 1):
        source = np.ascontiguousarray(source)
    width = source.shape[1]
    line = np.empty(3 * width + 1, np.float32)
    _compiled(
        source.ctypes.data,
        source.strides[0],
        width,
        *(rows.starts.ctypes.data, rows.weights.ctypes.data, *rows.weights.shape),
        *(columns.starts.ctypes.data, columns.weights.ctypes.data, *columns.weights.shape),
        line.ctypes.data,
        out.ctypes.data,
    )


def _sums_in_numpy(source: np.ndarray, rows: Spans, columns: Spans, out: np.ndarray) -> None:
    step = max(1, BLOCK_BYTES // (source.shape[1] * 48))
    for top in range(0, len(rows.starts), step):
        block = slice(top, top + step)
        lines = _sums(source, rows.starts[block], rows.weights[block])
        across = _sums(lines.transpose(1, 0, 2), columns.starts, columns.weights)
        out[block] = across.transpose(1, 0, 2)


def _sums(source: np.ndarray, starts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float32 [starts, …], of [n, …]."""
    total = np.zeros((len(starts), *source.shape[1:]), np.float32)
    for tap, column in enumerate(weights.T):
        total += source[starts + tap] * column[:, np.newaxis, np.newaxis]
    return total
