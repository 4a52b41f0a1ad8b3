"""How long batches take: measured by size, robust to a slow moment. No clock of its own."""

from __future__ import annotations

import statistics
from collections import deque

SIZES = 64
"""Sizes whose times are kept."""
RECENT = 4
"""Batches that tell how fast the machine is at the moment."""
WEIGHT = 0.1
"""Of a new batch in the time of its size."""


class Rates:
    """Seconds a batch of each size, times how fast the machine is at the moment.

    The first batch of a size is not counted: it may compile. The speed is that of the last batches
    of any size: of the second slowest of them, because an answer that was promised and comes too
    late costs more than one that was refused. So one batch that was held up changes nothing, and a
    machine that has become slow is known after two.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._base: dict[int, float] = {}
        self._speeds: deque[float] = deque(maxlen=RECENT)

    def observe(self, size: int, seconds: float) -> None:
        if size not in self._seen:
            if len(self._seen) < SIZES:
                self._seen.add(size)
            return
        base = self._base.get(size)
        if base is None:
            self._base[size] = max(seconds, 1e-6) / self._usual_speed()
            return
        self._speeds.append(seconds / base)
        fair = min(max(seconds / self._usual_speed(), base / 2), base * 2)
        self._base[size] = base + WEIGHT * (fair - base)

    def seconds(self, size: int) -> float | None:
        """How long a batch of `size` rows will take; None while nothing is measured.

        Never more than smaller batches one after the other: else a size that was slow once would
        never be tried again.
        """
        if not self._base:
            return None
        smaller = [base * -(-size // rows) for rows, base in self._base.items() if rows <= size]
        if smaller:
            return min(smaller) * self._speed()
        rows = min(self._base)
        return self._base[rows] * size / rows * self._speed()

    def _speed(self) -> float:
        return sorted(self._speeds)[-2] if len(self._speeds) > 1 else 1.0

    def _usual_speed(self) -> float:
        return statistics.median(self._speeds) if self._speeds else 1.0
