"""A lock that goes to those who wait for it in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque


class FairLock:
    """For a `with` block. `threading.Lock` may go to the thread that has just released it, again
    and again: a request of many parts would keep all others waiting to its end."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Lock] = deque()
        """One for each thread that waits, locked until its turn has come."""

    def __enter__(self) -> None:
        with self._guard:
            if not self._held:
                self._held = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()

    def __exit__(self, *_: object) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()  # still held: by the next one
            else:
                self._held = False
