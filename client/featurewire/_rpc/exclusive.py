"""Sends one call while no other call of the client is in flight.

A batching server merges requests that arrive together. If it does not isolate images, one bad image
fails the requests of the whole batch. If it refuses a call that was sent alone, the cause is that
call, unless another client's call was merged with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

POLL_SECONDS = 0.01
"""Seconds between two checks, and the minimum pause before the exclusive call is sent."""
WAIT_SECONDS = 30.0
"""Maximum seconds to wait until the other calls have ended."""


class ExclusiveSlot:
    """Held by up to one call, which delays all other calls. Thread-safe."""

    def __init__(self, in_flight: Callable[[], int]) -> None:
        self.holder: object = None
        self._since = 0.0
        self._in_flight = in_flight
        self._lock = threading.Lock()

    def admits(self, call: object, exclusive: bool, now: float) -> bool:
        """Whether the call may be sent now. If not, ask again after POLL_SECONDS."""
        with self._lock:
            if self.holder is None and exclusive:
                self.holder, self._since = call, now
            if self.holder is not call:
                return self.holder is None
            # Wait a moment, because another thread may be about to send.
            return now - self._since >= POLL_SECONDS and self._in_flight() == 0

    def release(self, call: object) -> None:
        if self.holder is call:
            self.holder = None
