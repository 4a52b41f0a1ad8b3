"""The memory of the process: how much it may use, and returning free memory to the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from pathlib import Path

from featurewire_server.common import cgroup

_MIB = 1 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameter numbers of glibc's `mallopt`."""
LARGE_BLOCK_BYTES = 256 << 10
"""Freed blocks from this size on return to the system. TensorFlow's activations are larger."""


def available_bytes() -> int:
    """Bytes that this process may use: the machine's memory or, if smaller, the cgroup limit."""
    limits = [limit] if (limit := cgroup.memory_limit()) is not None else []
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                limits.append(int(line.split()[1]) * 1024)
    return min(limits, default=4096 * _MIB)


def trim_heap() -> None:
    """Collect garbage and return free heap to the system.

    Reading a graph briefly takes several times its size. The C library keeps the freed memory,
    because it was allocated in small pieces. For a network of a few hundred megabytes, that is
    gigabytes.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def return_large_blocks() -> None:
    """Make the C library return large blocks to the system as soon as they are freed.

    By default, the library keeps the memory that TensorFlow frees after a batch. Two versions of
    the full-size network then hold 5.0 GB instead of 3.4 GB. Environment variables take precedence.
    """
    if {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} & os.environ.keys():
        return
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, LARGE_BLOCK_BYTES)
