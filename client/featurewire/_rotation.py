"""Which of several servers gets the next attempt."""

from __future__ import annotations

import threading
from collections.abc import Collection

__all__ = ["Rotation"]

FIRST_REST = 0.5
LONGEST_REST = 10.0


class Rotation:
    """Round robin over `count` servers; one that cannot be reached rests for a while. Thread-safe.

    The rest doubles from one failure to the next. When all rest, the one whose rest ends first is
    chosen: there is always an answer.
    """

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._next = 0
        self._rests_until = [0.0] * count
        self._failures = [0] * count

    def __len__(self) -> int:
        return len(self._failures)

    def pick(self, now: float, avoid: Collection[int] = ()) -> int:
        """The server for an attempt at `now`; one of `avoid` only when nothing else is left."""
        count = len(self._failures)
        if count == 1:
            return 0
        with self._lock:
            order = [(self._next + step) % count for step in range(count)]
            choice = min(
                order,
                key=lambda each: (each in avoid, max(self._rests_until[each], now)),
            )
            self._next = (choice + 1) % count
            return choice

    def failed(self, server: int, now: float) -> None:
        with self._lock:
            rest = min(LONGEST_REST, FIRST_REST * 2 ** min(self._failures[server], 10))
            self._failures[server] += 1
            self._rests_until[server] = now + rest

    def succeeded(self, server: int) -> None:
        if self._failures[server]:
            with self._lock:
                self._failures[server] = 0
                self._rests_until[server] = 0.0

    def has_other(self, now: float, avoid: Collection[int]) -> bool:
        """Some server outside `avoid` is not resting."""
        with self._lock:
            return any(
                each not in avoid and until <= now for each, until in enumerate(self._rests_until)
            )
