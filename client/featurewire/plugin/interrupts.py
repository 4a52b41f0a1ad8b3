"""Ctrl-C and SIGTERM as `KeyboardInterrupt`, so that a command can clean up before it ends."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

__all__ = ["Hold", "interruptible"]

REPEAT_SECONDS = 1.0
"""One Ctrl-C may arrive twice: from the terminal, and from the process that started this one."""


@contextmanager
def interruptible() -> Iterator[Hold]:
    """Within it, either signal raises `KeyboardInterrupt` in the main thread.

    Its argument is the exit status: 128 and the signal's number. A second signal, after more than
    `REPEAT_SECONDS`, also interrupts the clean-up. Within `with hold:` a signal waits for the end
    of the block. Outside the main thread nothing happens: Python calls signal handlers only there.
    """
    hold, before = Hold(), {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            # What the caller had ignored (`nohup`, `trap ''`) is no interrupt.
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, hold.interrupt)
    try:
        yield hold
    finally:
        for number, handler in before.items():
            if handler is not None:  # else it was set outside Python
                signal.signal(number, handler)


class Hold:
    """A block that no signal may tear in two."""

    def __init__(self) -> None:
        self._inside = False
        self._waiting = 0
        self._last = -REPEAT_SECONDS

    def interrupt(self, number: int, _frame: FrameType | None) -> None:
        """The signal handler."""
        again, self._last = time.monotonic() - self._last < REPEAT_SECONDS, time.monotonic()
        if self._inside:
            self._waiting = number
        elif not again:
            raise KeyboardInterrupt(128 + number)

    def __enter__(self) -> None:
        self._inside = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._inside = False
        if self._waiting:
            number, self._waiting = self._waiting, 0
            raise KeyboardInterrupt(128 + number)
