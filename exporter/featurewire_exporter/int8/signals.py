"""Handles Ctrl-C and SIGTERM while a library runs that may free the thread's signal stack."""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def received_elsewhere() -> Iterator[None]:
    """Let another thread receive both signals; Python's handlers still run in the main thread.

    Afterwards this thread has its former signal stack again.
    """
    libc, over = ctypes.CDLL(None), threading.Event()
    stack = (ctypes.c_size_t * 3)()  # an opaque `stack_t` of sigaltstack(2)
    libc.sigaltstack(None, stack)
    threading.Thread(target=over.wait, daemon=True).start()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        libc.sigaltstack(stack, None)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        over.set()
