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
        self._waiting: deque[_Ticket] = deque()

    @contextmanager
    def turn(self, deadline: float | None, cancelled: Cancellation) -> Iterator[None]:
        """Wait for a turn and hold it. Raises DEADLINE_EXCEEDED or CANCELLED instead.

        `deadline` is in seconds of `time.monotonic()`, None for none.
        """
        self._enter(deadline, cancelled)
        try:
            yield
        finally:
            self._leave()

    def _enter(self, deadline: float | None, cancelled: Cancellation) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            ticket = _Ticket()
            self._waiting.append(ticket)
        cancelled.add_callback(ticket.changed.set)
        ticket.changed.wait(None if deadline is None else deadline - time.monotonic())
        with self._lock:
            if ticket.turn:
                return
            self._waiting.remove(ticket)
        raise cancelled_error() if cancelled.is_set() else deadline_exceeded()

    def _leave(self) -> None:
        with self._lock:
            if self._waiting:
                ticket = self._waiting.popleft()
                ticket.turn = True
                ticket.changed.set()
            else:
                self._free += 1


class _Ticket:
    def __init__(self) -> None:
        self.changed = threading.Event()
        self.turn = False
