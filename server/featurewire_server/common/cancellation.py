"""Who waits for an answer, and whether anybody still does."""

from __future__ import annotations

import threading
from collections.abc import Callable

CLASS, BULK = "featurewire-class", "bulk"
"""The metadata, or header, of a call for which nobody waits."""


class Cancellation:
    """Set once, from any thread; callbacks added before or after are called once each.

    `caller` is whatever tells one connection from another, `bulk` the class of the call (see
    `schedule`).
    """

    def __init__(self, *, caller: object = None, bulk: bool = False) -> None:
        self.caller = caller
        self.bulk = bulk
        self._lock = threading.Lock()
        self._set = False
        self._callbacks: list[Callable[[], None]] = []

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        with self._lock:
            self._set = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Call `callback` when this is set; at once if it is set already."""
        with self._lock:
            if not self._set:
                self._callbacks.append(callback)
                return
        callback()
