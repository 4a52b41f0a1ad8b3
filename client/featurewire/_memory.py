"""One hint to the allocator, worth two thirds of the client's processor time for large requests.

glibc serves large blocks by mapping fresh pages and gives them back when they are freed, so every
request of a megabyte pays for hundreds of page faults (measured: 750 a request of 1.6 MB, 245
instead of 90 us of processor time an image of 100 KB). It stops doing so for blocks up to the
size of the largest one that it has seen freed, 32 MiB at most: mallopt(3), M_MMAP_THRESHOLD.
"""

from __future__ import annotations

import contextlib
import sys

__all__ = ["expect_large_blocks"]

LARGEST = 16 << 20
"""Twice the largest default request: what is freed together may stay at hand (32 MiB at most)."""


def expect_large_blocks() -> None:
    """Let glibc see a large block freed. The pages are never touched, so it costs microseconds.

    Any program that frees such a block has the same effect. Other allocators take no notice, and
    a process that may not have so much memory goes without.
    """
    if sys.platform == "linux":
        with contextlib.suppress(MemoryError):
            bytes(LARGEST)
