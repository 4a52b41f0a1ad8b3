"""Ctrl-C, held back while something must not be torn in two."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Interrupts:
    """Within `with interrupts.held:`, a SIGINT raises `KeyboardInterrupt` only at the block's end.

    A context manager itself, which puts its handler in place for the main thread: Python raises
    `KeyboardInterrupt` in no other.
    """

    def __init__(self) -> None:
        self.held = _Held()
        self._before: object = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self.held.interrupt)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if callable(self._before) or isinstance(self._before, int):
            signal.signal(signal.SIGINT, self._before)


class _Held:
    def __init__(self) -> None:
        self._inside = self._came = False

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        if not self._inside:
            raise KeyboardInterrupt
        self._came = True

    def __enter__(self) -> None:
        self._inside = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._inside = False
        if self._came:
            self._came = False
            raise KeyboardInterrupt
