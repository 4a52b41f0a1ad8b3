"""How long a batch takes by its number of rows, from the last few batches of each size."""

from __future__ import annotations

import math
from collections import deque

from featurewire_server.batching.policy import POLICY

Windows = dict[int, tuple[deque[float], float]]
"""Batch size to the seconds of the last few batches of that size and their median. The size that
was measured last is the last key."""


class LatencyEstimate:
    """Estimates the seconds per batch by the median of the last three batches of each size.

    The measured sizes give bounds for all other sizes. We assume that more rows take at least as
    long, and at most proportionally longer. If two sizes contradict each other, the newer
    measurement wins. The first batch of a size is ignored if it was slow, because it may have
    compiled something.
    """

    def __init__(self) -> None:
        self._all: Windows = {}
        self._fresh: deque[tuple[float, int, float]] = deque(maxlen=POLICY.kept)
        """The end, size and seconds of the last batches."""
        self._recent: Windows = {}
        """The windows of `_fresh`; empty if they are out of date."""
        self._expected: dict[int, float] = {}
        self._least: dict[int, float] = {}
        """Caches of `expected` and `least` by rows; each measurement clears both."""

    def observe(self, rows: int, seconds: float, now: float) -> None:
        """Record that a batch of `rows` has taken `seconds`."""
        size = int(float(f"{rows:.2g}"))  # bounds the number of windows
        if size not in self._all and not seconds <= _bounds(self._all, rows)[1] < math.inf:
            self._all[size] = deque(maxlen=POLICY.recent_batches), math.nan
            return
        _add(self._all, size, seconds)
        self._fresh.append((now, size, seconds))
        self._expected.clear()
        self._forget_recent()

    def expected(self, rows: int) -> float:
        """Expected seconds of a batch, from all measurements; 0 before the first one.

        The schedule uses this to choose batch sizes.
        """
        if rows not in self._expected:
            low, high = _bounds(self._all, rows)
            self._expected[rows] = 0.0 if high == math.inf else (low + high) / 2
        return self._expected[rows]

    def least(self, rows: int, since: float) -> float:
        """Lower bound for the seconds of a batch, from batches that ended after `since`.

        Only recent batches may refuse a call.
        """
        while self._fresh and self._fresh[0][0] < since:
            self._fresh.popleft()
            self._forget_recent()
        if rows not in self._least:
            if not self._recent:
                for _, size, seconds in self._fresh:
                    _add(self._recent, size, seconds)
            self._least[rows] = _bounds(self._recent, rows)[0]
        return self._least[rows]

    def _forget_recent(self) -> None:
        self._recent.clear()
        self._least.clear()


def _add(windows: Windows, size: int, seconds: float) -> None:
    window, _ = windows.pop(size, (deque[float](maxlen=POLICY.recent_batches), 0.0))
    window.append(seconds)
    windows[size] = window, sorted(window)[(len(window) - 1) // 2]


def _bounds(windows: Windows, rows: int) -> tuple[float, float]:
    """Lower and upper bound for the seconds of a batch; (0, infinity) without measurements."""
    low, high = 0.0, math.inf
    for size, (window, median) in reversed(windows.items()):
        if window:
            scaled = median * rows / size
            below, above = (median, scaled) if rows > size else (scaled, median)
            low, high = min(max(low, below), high), max(min(high, above), low)
    return low, high
