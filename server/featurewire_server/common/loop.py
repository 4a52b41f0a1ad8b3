"""The event loop, shared by all transports, in a separate thread.

`grpc.aio` may deadlock if another thread reconfigures logging at the same time
(grpc/grpc#43421). Importing TensorFlow does that, so `configs` imports it before the loop starts.
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
"""Threads for work that would block the loop: large messages, and reloading the config. All are
started together, because a container may refuse further threads later."""
LARGE_BYTES = 2 << 20
"""Messages from this size on are parsed and serialized in a worker. For smaller ones the handover
costs more than the work, because images are not even copied."""
NUMBERS = 4
"""Cost per byte of numbers, relative to images."""
JSON = 512
"""Cost per byte of JSON, or of numbers that become JSON, relative to images."""


@functools.cache
def event_loop() -> asyncio.AbstractEventLoop:
    """The loop, which runs until the process ends.

    All servers of the process share it, because `grpc.aio` wakes every loop for every event.
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
    """A uvloop loop, because it is faster, or an asyncio loop if uvloop is not installed."""
    try:
        import uvloop
    except ImportError:  # uvloop does not support Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop, from another thread, and return its result."""
    return asyncio.run_coroutine_threadsafe(work, event_loop()).result()


async def by_size(size: int, work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Call `work` here if `size` (bytes) is below LARGE_BYTES, else in a worker thread."""
    if size < LARGE_BYTES:
        return work(*args, **options)
    return await asyncio.to_thread(work, *args, **options)
