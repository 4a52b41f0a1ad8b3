"""Whether callers come back as soon as they are answered, as those of a closed loop do.

Then it pays to let them: one batch of four takes less time than two of two, which would take turns
for ever, each started while the other runs and so without its callers.
"""

from __future__ import annotations

import math

SOON = 0.01
"""Seconds from the end of a batch until what comes counts as its callers' next tasks."""
USUAL = 2 / 3
"""Share of a batch's rows that come back in a closed loop, by far."""
WEIGHT = 0.2
"""Of a batch in that share."""


class Returns:
    """Of one queue. `now` is in seconds, of any clock."""

    def __init__(self) -> None:
        self._share = 0.0
        self._ended_at = -math.inf
        self._rows = self._back = 0

    def ended(self, rows: int, now: float) -> None:
        """A batch has run; its callers are answered."""
        if self._rows:
            self._share += WEIGHT * (min(self._back / self._rows, 1.0) - self._share)
        self._ended_at, self._rows, self._back = now, rows, 0

    def came(self, rows: int, now: float) -> None:
        """A task has come."""
        if now - self._ended_at <= SOON:
            self._back += rows

    @property
    def usual(self) -> bool:
        """Callers come back as a rule."""
        return self._share >= USUAL

    @property
    def missing(self) -> int:
        """Rows of the last batch that may still come back."""
        return max(self._rows - self._back, 0)

    def until(self, patience: float) -> float:
        """When, at the latest, those who come back within `patience` seconds are there."""
        return self._ended_at + patience if self.missing else -math.inf
