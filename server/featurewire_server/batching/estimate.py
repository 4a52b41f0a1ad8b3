"""How long a batch takes by its number of rows, from the last few batches of each size."""

from __future__ import annotations

import math
from collections import deque

from featurewire_server.batching.policy import POLICY

Windows = dict[int, tuple[deque[float], float]]
"""By batch size: the seconds of its last few batches, and their median. The newest is the last."""


class LatencyEstimate:
    """Seconds per batch: the median of the last three batches of each size.

    Other sizes are bounded by these, because more rows never take less time, nor more than in
    proportion. If two sizes contradict each other, the newer measurement wins. The first batch of a
    size is ignored if it was slow, because it may have compiled something.
    """

    def __init__(self) -> None:
        self._all: Windows = {}
        self._fresh: deque[tuple[float, int, float]] = deque(maxlen=POLICY.kept)
        """The end, size and seconds of the last batches."""
        self._recent: Windows = {}
        """The windows of `_fresh`; empty if they are out of date."""
        self._expected: dict[int, float] = {}
        self._least: dict[int, float] = {}
        """Caches of the two methods, by rows; cleared by each measurement."""

    def observe(self, rows: int, seconds: float, now: float) -> None:
        """A batch of `rows` has taken `seconds`."""
        size = int(float(f"{rows:.2g}"))  # bounds the number of windows
        if size not in self._all and not seconds <= _bounds(self._all, rows)[1] < math.inf:
            self._all[size] = deque(maxlen=POLICY.recent_batches), math.nan
            return
        _add(self._all, size, seconds)
        self._fresh.append((now, size, seconds))
        self._expected.clear()
        self._forget_recent()

    def expected(self, rows: int) -> float:
        """Seconds for choosing batch sizes, from all measurements; 0 before the first one."""
        if rows not in self._expected:
            low, high = _bounds(self._all, rows)
            self._expected[rows] = 0.0 if high == math.inf else (low + high) / 2
        return self._expected[rows]

    def least(self, rows: int, since: float) -> float:
        """Seconds for refusing calls: the lower bound by batches that ended after `since`."""
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
    """Bounds for the seconds of a batch of `rows`; (0, infinity) before the first measurement."""
    low, high = 0.0, math.inf
    for size, (window, median) in reversed(windows.items()):
        if window:
            scaled = median * rows / size
            below, above = (median, scaled) if rows > size else (scaled, median)
            low, high = min(max(low, below), high), max(min(high, above), low)
    return low, high
