"""Reads image files a little ahead of their use, several at a time: disks have latency too."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from featurewire._images import read_file

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
        return read_file(path)
    except OSError as exc:
        return exc
