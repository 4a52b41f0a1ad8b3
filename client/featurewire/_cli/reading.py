"""Reads image files a little ahead of their use, several at a time: disks have latency too."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

MAX_FILE_BYTES = 256 << 20
"""More is no image, and a mistake should not fill the memory."""

_THREADS = 4
_AHEAD = 16  # files

Content = bytes | OSError


def read_ahead(
    paths: Iterable[str], on_failure: Callable[[str, str], None]
) -> Iterator[tuple[str, bytes]]:
    """Yield `(path, content)` in order; what cannot be read goes to `on_failure` instead."""
    waiting: deque[tuple[str, Future[Content]]] = deque()
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="reading")

    def front() -> Iterator[tuple[str, bytes]]:
        path, future = waiting.popleft()
        content = future.result()
        if isinstance(content, OSError):
            on_failure(path, (content.strerror or str(content)).lower())
        else:
            yield path, content

    try:
        for path in paths:
            waiting.append((path, pool.submit(_read, path)))
            if len(waiting) >= _AHEAD:
                yield from front()
        while waiting:
            yield from front()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _read(path: str) -> Content:
    try:
        # Not blocking: opening a named pipe would wait for its writer.
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode):
                return OSError(0, "not a regular file")
            if info.st_size > MAX_FILE_BYTES:
                return OSError(0, f"larger than {MAX_FILE_BYTES >> 20} MiB")
            return file.read()
    except OSError as exc:
        return exc
