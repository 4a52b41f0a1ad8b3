"""Ctrl-C and SIGTERM as `KeyboardInterrupt`, so that a step can put back what it began."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["interruptible"]

SAME_SECONDS = 1.0
"""One Ctrl-C may come twice: from the terminal, and from what started this process."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it, either signal raises `KeyboardInterrupt`; its argument is the exit status.

    A second signal interrupts the putting back as well. For the main thread.
    """
    came = -SAME_SECONDS

    def interrupt(number: int, _frame: FrameType | None) -> None:
        nonlocal came
        again, came = time.monotonic() - came < SAME_SECONDS, time.monotonic()
        if not again:
            raise KeyboardInterrupt(128 + number)

    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        # What the caller had ignored (`nohup`) is no interrupt.
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
