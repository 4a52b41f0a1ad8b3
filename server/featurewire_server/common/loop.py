"""The event loop of all transports: one for the process, in a thread of its own.

`grpc.aio` may deadlock where another thread reconfigures logging meanwhile (grpc/grpc#43421).
TensorFlow does so when it is imported, which `configs` sees to before the loop starts.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

WORKERS = 8
"""Threads for what would hold up the loop: large messages, and reloading the config. All start at
once: a container may give no more later."""
LARGE_BYTES = 2 << 20
"""From this size on, a message is read and written in a worker. Handing over a smaller one costs
more than the work: images are not even copied."""
NUMBERS = 4
"""What a byte of numbers costs, in bytes of images."""
JSON = 512
"""The same of a byte of JSON, or of a number that becomes JSON."""


@functools.cache
def event_loop() -> asyncio.AbstractEventLoop:
    """The loop, which runs as long as the process.

    One for all servers of the process: `grpc.aio` wakes every loop that it knows for every event.
    """
    loop = _new_loop()
    workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="worker")
    all_started = threading.Barrier(WORKERS)
    for _ in range(WORKERS):
        workers.submit(all_started.wait)
    loop.set_default_executor(workers)
    threading.Thread(target=loop.run_forever, name="event-loop", daemon=True).start()
    return loop


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, on which calls cost less, else asyncio's."""
    try:
        import uvloop
    except ImportError:  # it has no wheel for Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, from another thread than the loop's."""
    return asyncio.run_coroutine_threadsafe(work, event_loop()).result()


async def by_size(size: int, work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """`work` here if it is about few bytes, else in a worker."""
    if size < LARGE_BYTES:
        return work(*args, **options)
    return await asyncio.to_thread(work, *args, **options)
