"""Pause a whole client, so that one call is sent alone.

A batching server merges requests that arrive together. If it does not isolate images, one bad image
fails the whole batch. If the server refuses a call that was sent alone, the cause is that call
itself, as far as this client can see.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["POLL_SECONDS", "WAIT_SECONDS", "ExclusiveSlot"]

POLL_SECONDS = 0.01
"""Seconds between two looks, and the least that a pause lasts before its call goes."""
WAIT_SECONDS = 30.0
"""Seconds to wait for what is in flight to come back."""


class ExclusiveSlot:
    """One call at a time holds back all others. Thread-safe."""

    def __init__(self, in_flight: Callable[[], int]) -> None:
        self.holder: object = None
        self._since = 0.0
        self._in_flight = in_flight
        self._lock = threading.Lock()

    def admits(self, call: object, alone: bool, now: float) -> bool:
        """The call may go now; else ask again."""
        with self._lock:
            if self.holder is None and alone:
                self.holder, self._since = call, now
            if self.holder is not call:
                return self.holder is None
            # Not at once: another thread may be about to send.
            return now - self._since >= POLL_SECONDS and self._in_flight() == 0

    def release(self, call: object) -> None:
        if self.holder is call:
            self.holder = None
