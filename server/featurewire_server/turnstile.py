"""Lets so many calls work at once, in the order in which they came."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from .cancellation import Cancellation
from .errors import cancelled as cancelled_error
from .errors import deadline_exceeded


class Turnstile:
    """`width` calls pass at once; one that was cancelled or is late leaves the queue at once."""

    def __init__(self, width: int) -> None:
        self._lock = threading.Lock()
        self._free = width
        """Below 0 while turns that were lent are back."""
        self._waiting: deque[Turn] = deque()

    @contextmanager
    def turn(self, deadline: float | None, cancelled: Cancellation) -> Iterator[Turn]:
        """Wait for a turn and hold it. Raises DEADLINE_EXCEEDED or CANCELLED instead.

        `deadline` is in seconds of `time.monotonic()`, None for none.
        """
        turn = Turn(self)
        self._enter(turn, deadline, cancelled)
        try:
            yield turn
        finally:
            turn.lend()  # for good

    def _enter(self, turn: Turn, deadline: float | None, cancelled: Cancellation) -> None:
        with self._lock:
            if self._free > 0:
                self._free -= 1
                turn.held = True
                return
            self._waiting.append(turn)
        cancelled.add_callback(turn.changed.set)
        turn.changed.wait(None if deadline is None else deadline - time.monotonic())
        with self._lock:
            if turn.held:
                return
            self._waiting.remove(turn)
        raise cancelled_error() if cancelled.is_set() else deadline_exceeded()

    def _lend(self, turn: Turn) -> None:
        with self._lock:
            if not turn.held:
                return
            turn.held = False
            if self._waiting and self._free >= 0:
                following = self._waiting.popleft()
                following.held = True
                following.changed.set()
            else:
                self._free += 1

    def _take_back(self, turn: Turn) -> None:
        with self._lock:
            if not turn.held:
                turn.held = True
                self._free -= 1


class Turn:
    """One call's turn. A holder who has nothing to do may lend it to others meanwhile."""

    def __init__(self, turnstile: Turnstile) -> None:
        self.held = False
        """Guarded by the turnstile's lock."""
        self.changed = threading.Event()
        self._turnstile = turnstile

    def lend(self) -> None:
        """Let the next one pass."""
        self._turnstile._lend(self)

    def take_back(self) -> None:
        """Have it again at once; nobody new passes before as many have left."""
        self._turnstile._take_back(self)
