"""The process's memory: how much there may be, and giving back what is free."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from pathlib import Path

from featurewire_server.common import cgroup

_MIB = 1 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""What glibc's `mallopt` calls them."""
LARGE_BLOCK_BYTES = 256 << 10
"""From this size on, a freed block goes back to the system. TensorFlow's activations are larger."""


def available_bytes() -> int:
    """What this process may use: the machine's memory or, if smaller, its control group's."""
    limits = [limit] if (limit := cgroup.memory_limit()) is not None else []
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                limits.append(int(line.split()[1]) * 1024)
    return min(limits, default=4096 * _MIB)


def give_back() -> None:
    """Collect garbage and return free heap to the system.

    Reading a graph takes several times its size for a moment. The C library keeps what was freed,
    because it was allocated in small pieces: gigabytes, for a network of a few hundred megabytes.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library than GNU's
        ctypes.CDLL(None).malloc_trim(0)


def return_large_blocks() -> None:
    """Have the C library return large blocks to the system as soon as they are freed.

    By default it keeps what batches of TensorFlow have freed: two versions of the full-size network
    hold 5.0 GB instead of 3.4. What the environment sets comes first.
    """
    if {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} & os.environ.keys():
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library than GNU's
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, LARGE_BLOCK_BYTES)
