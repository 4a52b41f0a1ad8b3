"""Turn Ctrl-C and SIGTERM into `KeyboardInterrupt`, so that a command can clean up first."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

REPEAT_SECONDS = 1.0
"""Seconds in which a second signal counts as the same one. A single Ctrl-C may arrive twice, from
the terminal and from the parent process."""


@contextmanager
def interruptible() -> Iterator[Hold]:
    """Raise `KeyboardInterrupt` in the main thread for SIGINT and SIGTERM inside this block.

    The exception's argument is the exit status: 128 plus the signal's number. A second signal after
    more than `REPEAT_SECONDS` also interrupts the clean-up. A signal inside `with hold:` waits for
    the end of that block. In other threads this does nothing, because Python runs signal handlers
    only in the main thread.
    """
    hold, before = Hold(), {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            # Keep ignoring a signal that the parent ignored (`nohup`, `trap ''`).
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, hold.interrupt)
    try:
        yield hold
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: the handler was installed outside Python
                signal.signal(number, handler)


class Hold:
    """A block that signals do not interrupt; they take effect at its end."""

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
