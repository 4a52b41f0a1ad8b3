"""How long a batch takes by its number of rows, from the last few batches of each size."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque

from featurewire_server.batching.policy import POLICY


class LatencyEstimate:
    """Seconds per batch, measured. More rows never take less time, nor more than in proportion.

    Each size keeps the real times of its last few batches, and forgets old ones when it is measured
    again. Where two sizes contradict each other, the one that was measured last is right. The first
    batch of a size is not trusted if it was slow, because it may have compiled something.
    """

    def __init__(self) -> None:
        self._windows: dict[int, deque[tuple[float, float]]] = {}
        """By size: when a batch ended, and its seconds. The last key was measured last."""
        self._first: dict[int, float] = {}
        """The first time of a size, if it was slow: it may have compiled something, so that it only
        bounds what is extrapolated from other sizes."""
        self._known_at: dict[int, float] = {}
        """When a batch of a size was last measured or probed."""
        self._recent: deque[tuple[int, float]] = deque(maxlen=3 * POLICY.recent_batches)
        """The last batches of any size."""
        self._largest = 0
        """The largest size that was measured."""
        self._sizes: list[int] = []
        self._seconds: list[float] = []
        """The expected time of each of `_sizes`, which are in order."""

    def observe(self, rows: int, seconds: float, now: float) -> None:
        """A batch of `rows` has taken `seconds`."""
        size = _rounded(rows)
        window = self._windows.pop(size, None)
        if window is None:
            window = deque(maxlen=POLICY.recent_batches)
            if seconds > self.expected(rows):
                self._windows[size], self._first[size] = window, seconds
                self._sizes, self._seconds = self._curve()
                return
        window.append((now, seconds))
        while window[0][0] < now - POLICY.recent(seconds):
            window.popleft()
        self._windows[size] = window
        self._known_at[size] = now
        self._largest = max(self._largest, size)
        self._recent.append((rows, seconds))
        self._sizes, self._seconds = self._curve()

    def expected(self, rows: int) -> float:
        """Usual seconds of a batch of `rows`; 0 while nothing is measured.

        Sizes in between are interpolated, others are extrapolated in proportion.
        """
        if not self._sizes:
            return 0.0
        at = bisect_left(self._sizes, rows)
        if at == len(self._sizes):
            return self._seconds[-1] * rows / self._sizes[-1]
        small, low = (self._sizes[at - 1], self._seconds[at - 1]) if at else (0, 0.0)
        share = (rows - small) / (self._sizes[at] - small)
        return low + share * (self._seconds[at] - low)

    def least(self, rows: int) -> float:
        """Seconds that a batch of `rows` takes if it goes as well as any of the last few did.

        0 while these are too few to tell.
        """
        if len(self._recent) < POLICY.recent_batches:
            return 0.0
        times = (seconds * min(1.0, rows / size) for size, seconds in self._recent)
        return min(times)

    def proven(self, rows: int) -> float:
        """`expected`, but for a larger batch than any that was measured no more than for that."""
        return self.expected(min(rows, self._largest))

    def is_hearsay(self, rows: int, now: float) -> bool:
        """Whether no batch of about `rows`, more than half and less than twice, was measured or
        probed lately."""
        times = (at for size, at in self._known_at.items() if rows < 2 * size < 4 * rows)
        return now - max(times, default=-math.inf) > POLICY.recent(self.least(rows))

    def probe(self, rows: int, now: float) -> None:
        """A batch of `rows` is about to be measured."""
        self._known_at[_rounded(rows)] = now

    def _curve(self) -> tuple[list[int], list[float]]:
        """Sizes and their times. From the newest on, each is kept within what newer ones allow."""
        sizes: list[int] = []
        times: list[float] = []
        measured = [
            (size, sorted(each for _, each in window)[(len(window) - 1) // 2])
            for size, window in reversed(self._windows.items())
            if window
        ]
        unsure = [item for item in self._first.items() if not self._windows[item[0]]]
        for size, seconds in (*measured, *unsure) if measured else ():
            at = bisect_left(sizes, size)
            if at:
                smaller = times[at - 1]
                seconds = min(max(seconds, smaller), smaller * size / sizes[at - 1])
            if at < len(sizes):
                larger = times[at]
                seconds = min(max(seconds, larger * size / sizes[at]), larger)
            sizes.insert(at, size)
            times.insert(at, seconds)
        return sizes, times


def _rounded(rows: int) -> int:
    """Two significant digits: few sizes are kept, whatever callers send."""
    return int(float(f"{rows:.2g}"))
