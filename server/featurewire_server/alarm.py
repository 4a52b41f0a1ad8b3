"""Calls back for what is not done within its time."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


class Alarm:
    """Rings after `seconds`, the same for all: so the first to begin is the first to be late."""

    def __init__(self, seconds: float, name: str) -> None:
        self._seconds = seconds
        # Those that are done leave at once: what they would ring for must not stay in memory.
        self._waiting: OrderedDict[object, tuple[float, Callable[[], None]]] = OrderedDict()
        self._changed = threading.Condition()
        self._idle = False
        self._closed = False
        threading.Thread(target=self._watch, name=name, daemon=True).start()

    def __len__(self) -> int:
        """How many are not done."""
        return len(self._waiting)

    @contextmanager
    def over(self, ring: Callable[[], None]) -> Iterator[None]:
        """Call `ring` once if the body of the `with` takes longer, and never when it has ended."""
        key = object()
        with self._changed:
            self._waiting[key] = (time.monotonic(), ring)
            if self._idle:  # else it wakes before this can be late
                self._idle = False
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._waiting.pop(key, None)

    def shorten(self, seconds: float) -> None:
        """Ring after so long from now on, also for those that have begun."""
        with self._changed:
            self._seconds = min(self._seconds, seconds)
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                if not self._waiting:
                    self._idle = True
                    self._changed.wait()
                    continue
                key, (began, ring) = next(iter(self._waiting.items()))
                left = began + self._seconds - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                del self._waiting[key]
                try:
                    ring()  # with the lock: never after `over` has returned
                except Exception:
                    log.exception("an alarm failed")
