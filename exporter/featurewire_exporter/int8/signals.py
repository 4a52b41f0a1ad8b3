"""Ctrl-C and SIGTERM while other people's code runs that may take the stack for signals away."""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def received_elsewhere() -> Iterator[None]:
    """Within it, another thread receives both signals; Python's handlers run in the main one.

    Then this thread has the stack for signals again that it had before.
    """
    libc, over = ctypes.CDLL(None), threading.Event()
    stack = (ctypes.c_size_t * 3)()  # `stack_t` of sigaltstack(2), which nobody here looks into
    libc.sigaltstack(None, stack)
    threading.Thread(target=over.wait, daemon=True).start()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        libc.sigaltstack(stack, None)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        over.set()
