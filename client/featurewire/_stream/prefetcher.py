"""Prefetches the images of a stream from its source.

A plain iterable is iterated on a separate thread, so that a slow iterable does not delay results.
Files are read, and functions called, on up to `readers` further threads. These threads only pass
events to `deliver`. The driver runs the events, so all other code here runs on one thread.
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import time
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from functools import partial
from typing import Any

from featurewire._errors import ImageError
from featurewire._images import KINDS, Source, advice, try_load
from featurewire._stream.requests import Entry
from featurewire._stream.stream import Stream

LEAVE_SECONDS = 0.05
"""Maximum seconds to wait for the source's thread when the caller leaves the stream."""


class Prefetcher:
    """Prefetches the images of one stream. `timeout`: maximum seconds to read one image."""

    def __init__(
        self,
        stream: Stream,
        readers: int,
        timeout: float | None,
        deliver: Callable[[Callable[[], None]], None],
    ) -> None:
        self._stream = stream
        self._readers = readers
        self._timeout = timeout
        self._deliver = deliver
        self._position = 0
        self._asked = 0
        """Number of images that were requested from the source and have not arrived."""
        self._loading: dict[Entry, tuple[float, Source]] = {}
        """When the read began, infinity during the wait for a thread; and the image's source."""
        self._ended: tuple[BaseException | None] | None = None
        self._next: Callable[[], object] = lambda: None
        self._closed = False
        self._walker: threading.Thread | None = None
        self._jobs: queue.SimpleQueue[tuple[Entry, Source] | None] = queue.SimpleQueue()
        self._threads = 0

    def start(self, images: Iterable[Any]) -> None:
        """Start to read from an iterable."""
        source = iter(images)
        if isinstance(images, (list, tuple)):  # these never block
            self._next = lambda: self._take(source, lambda event: event())
            return
        tokens: queue.SimpleQueue[None] = queue.SimpleQueue()

        def start() -> None:
            while True:
                tokens.get()
                if self._closed or not self._take(source, self._deliver):
                    return

        self._next = lambda: tokens.put(None)
        self._walker = threading.Thread(target=start, daemon=True, name="featurewire-source")
        self._walker.start()

    def _take(self, source: Iterator[Any], deliver: Callable[[Callable[[], None]], None]) -> bool:
        """Take the next image. Returns False at the end of the source."""
        try:
            pair = self._pair(next(source))
        except BaseException as error:
            deliver(partial(self._end, error))
            if self._walker is None and not isinstance(error, Exception):  # Ctrl-C
                raise
            return False
        deliver(partial(self._on_item, *pair))
        return True

    def start_async(self, images: AsyncIterable[Any]) -> asyncio.Task[None]:
        """Start to read from an async iterable, in a task that the caller must cancel."""
        source, tokens = aiter(images), asyncio.Semaphore(0)

        async def start_async() -> None:
            while True:
                await tokens.acquire()
                try:
                    pair = self._pair(await anext(source))
                except BaseException as error:
                    self._deliver(partial(self._end, error))
                    return
                self._deliver(partial(self._on_item, *pair))

        self._next = tokens.release
        return asyncio.ensure_future(start_async())

    def ask(self) -> None:
        """Request images from the source until the stream has enough."""
        while self._has_demand():
            self._asked += 1
            self._next()

    def _has_demand(self) -> bool:
        pending = self._asked + len(self._loading)
        if self._ended is not None or pending >= max(self._stream.per_request, 2 * self._readers):
            return False
        return self._stream.wants(self._asked)

    def _pair(self, item: object) -> tuple[Any, Source]:
        """Key and image of the source's next item.

        Copies a mutable buffer, because the source may reuse it for the next item.
        """
        key, image = _split_pair(item, self._position)
        self._position += 1
        return key, bytes(image) if isinstance(image, (bytearray, memoryview)) else image

    def _on_item(self, key: Any, image: Source) -> None:
        """Handle an image that the source has yielded."""
        self._asked = max(0, self._asked - 1)
        if self._ended is not None:
            return
        entry = self._stream.open(key)
        if isinstance(image, bytes):
            self._stream.fill(entry, image, time.monotonic())
            return
        self._loading[entry] = math.inf, image
        self._jobs.put((entry, image))
        if self._threads < min(self._readers, len(self._loading)):
            self._start_reader()

    def _start_reader(self) -> None:
        self._threads += 1
        threading.Thread(target=self._read, daemon=True, name="featurewire-read").start()

    def _read(self) -> None:
        while (job := self._jobs.get()) is not None and not self._closed:
            entry, image = job
            began = time.monotonic()
            self._deliver(partial(self._began, entry, began))
            try:
                loaded = try_load(image, entry.key)
            except BaseException as error:
                why = f"{entry.key!r}: {str(error) or type(error).__name__}"
                self._deliver(partial(self._loaded, entry, ImageError(why, reason="unreadable")))
                raise
            if self._timeout is not None and time.monotonic() - began > self._timeout:
                return  # `give_up` has failed this image and started another thread
            self._deliver(partial(self._loaded, entry, loaded))

    def _began(self, entry: Entry, began: float) -> None:
        if entry in self._loading:
            self._loading[entry] = began, self._loading[entry][1]

    def _loaded(self, entry: Entry, image: Any) -> None:
        if self._loading.pop(entry, None) is not None:
            self._stream.fill(entry, image, time.monotonic())
            self._end_if_done()

    def _end(self, error: BaseException) -> None:
        """Record that the source is exhausted, or the exception that it raised."""
        if self._ended is None:
            is_stop = isinstance(error, (StopIteration, StopAsyncIteration))
            self._ended = (None if is_stop else error,)
            self._end_if_done()

    def _end_if_done(self) -> None:
        if self._ended is not None and not self._loading:
            self._stream.end(self._ended[0])

    def give_up(self, now: float) -> None:
        """Fail the images whose reading takes longer than `timeout`."""
        if self._timeout is None or not self._loading:
            return
        late = [
            (entry, source)
            for entry, (began, source) in self._loading.items()
            if now > began + self._timeout
        ]
        for entry, source in late:
            self._start_reader()
            if callable(source):
                what, advice = f"the function for key {entry.key!r} did not return", "more time"
            else:
                what, advice = f"{entry.key!r}: the file was not read", "files"
            text = f"{what} within {self._timeout:g} s"
            self._loaded(entry, ImageError(text, reason="unreadable", advice=advice))

    def wake_at(self) -> float:
        """When to call `give_up` next."""
        if self._timeout is None or not self._loading:
            return math.inf
        return min(began for began, _ in self._loading.values()) + self._timeout + 0.001

    def close(self, *, wait: bool = True) -> None:
        """Stop reading."""
        self._closed = True
        if self._walker is not None:
            self._next()
        for _ in range(self._threads):
            self._jobs.put(None)
        if self._walker is not None and wait:
            self._walker.join(LEAVE_SECONDS)


def _split_pair(item: object, position: int) -> tuple[Any, Source]:
    """The key and the image of one item. The key of an item without one is its position."""
    key, image = position, item
    if isinstance(item, tuple):
        if len(item) != 2:
            raise TypeError(
                f"item {position}: expected an image or a (key, image) pair, "
                f"not a tuple of {len(item)}"
            )
        key, image = item
    if isinstance(image, KINDS) or callable(image):
        return key, image
    raise TypeError(f"item {position}: {advice(image)}")
