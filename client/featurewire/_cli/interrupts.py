"""Ctrl-C and SIGTERM, held back while something must not be torn in two."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Interrupts:
    """Within `with interrupts.held:`, a signal raises `KeyboardInterrupt` only at the block's end.

    A context manager itself, which puts its handler in place for the main thread: Python raises
    `KeyboardInterrupt` in no other. Its argument is the exit status: 128 and the signal's number.
    """

    def __init__(self) -> None:
        self.held = _Held()
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # What the caller had ignored (`nohup`, `trap ''`) is no interrupt.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self.held.interrupt)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, before in self._before.items():
            if callable(before) or isinstance(before, int):
                signal.signal(number, before)


class _Held:
    def __init__(self) -> None:
        self._inside = False
        self._came = 0

    def interrupt(self, number: int, _frame: FrameType | None) -> None:
        if not self._inside:
            raise KeyboardInterrupt(128 + number)
        self._came = number

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
            number, self._came = self._came, 0
            raise KeyboardInterrupt(128 + number)
