"""Reads a stream's source, ahead of what is sent.

A plain iterable is walked on a separate thread, so that a slow iterable does not delay results.
Paths and functions are read on `readers` threads. The threads pass events to `deliver`; all other
code runs where the driver calls those events.
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
from featurewire._stream.packing import Slot
from featurewire._stream.stream import Stream

__all__ = ["Reading"]

LEAVING = 0.05
"""Seconds that a stream which is left waits for its source's thread."""


class Reading:
    """Reads the images of one stream. `timeout`: seconds that one may take to be read."""

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
        """Images that were asked for and have not come."""
        self._loading: dict[Slot, tuple[float, Source]] = {}
        """When the read began, infinity during the wait for a thread; and the image's source."""
        self._ended: tuple[BaseException | None] | None = None
        self._next: Callable[[], object] = lambda: None
        self._closed = False
        self._walker: threading.Thread | None = None
        self._jobs: queue.SimpleQueue[tuple[Slot, Source] | None] = queue.SimpleQueue()
        self._threads = 0

    def walk(self, images: Iterable[Any]) -> None:
        """Read from this iterable."""
        source = iter(images)
        if isinstance(images, (list, tuple)):  # which never wait
            self._next = lambda: self._take(source, lambda event: event())
            return
        tokens: queue.SimpleQueue[None] = queue.SimpleQueue()

        def walk() -> None:
            while True:
                tokens.get()
                if self._closed or not self._take(source, self._deliver):
                    return

        self._next = lambda: tokens.put(None)
        self._walker = threading.Thread(target=walk, daemon=True, name="featurewire-source")
        self._walker.start()

    def _take(self, source: Iterator[Any], deliver: Callable[[Callable[[], None]], None]) -> bool:
        """Take the next image; False at the end."""
        try:
            pair = self._pair(next(source))
        except BaseException as exc:
            deliver(partial(self._end, exc))
            if self._walker is None and not isinstance(exc, Exception):  # Ctrl-C
                raise
            return False
        deliver(partial(self._came, *pair))
        return True

    def follow(self, images: AsyncIterable[Any]) -> asyncio.Task[None]:
        """Read from this async iterable in a task, which the caller must cancel."""
        source, tokens = aiter(images), asyncio.Semaphore(0)

        async def follow() -> None:
            while True:
                await tokens.acquire()
                try:
                    pair = self._pair(await anext(source))
                except BaseException as exc:
                    self._deliver(partial(self._end, exc))
                    return
                self._deliver(partial(self._came, *pair))

        self._next = tokens.release
        return asyncio.ensure_future(follow())

    def ask(self) -> None:
        """Ask for as many images as the stream wants."""
        while self._wants():
            self._asked += 1
            self._next()

    def _wants(self) -> bool:
        pending = self._asked + len(self._loading)
        if self._ended is not None or pending >= max(self._stream.per_request, 2 * self._readers):
            return False
        return self._stream.wants(self._asked)

    def _pair(self, item: object) -> tuple[Any, Source]:
        """Key and image of the source's next item.

        A copy, where the source may reuse a buffer for the item after it.
        """
        key, image = _split_pair(item, self._position)
        self._position += 1
        return key, bytes(image) if isinstance(image, (bytearray, memoryview)) else image

    def _came(self, key: Any, image: Source) -> None:
        """The source gave this."""
        self._asked = max(0, self._asked - 1)
        if self._ended is not None:
            return
        slot = self._stream.open(key)
        if isinstance(image, bytes):
            self._stream.fill(slot, image, time.monotonic())
            return
        self._loading[slot] = math.inf, image
        self._jobs.put((slot, image))
        if self._threads < min(self._readers, len(self._loading)):
            self._start_reader()

    def _start_reader(self) -> None:
        self._threads += 1
        threading.Thread(target=self._read, daemon=True, name="featurewire-read").start()

    def _read(self) -> None:
        while (job := self._jobs.get()) is not None and not self._closed:
            slot, image = job
            began = time.monotonic()
            self._deliver(partial(self._began, slot, began))
            try:
                loaded = try_load(image, slot.key)
            except BaseException as exc:
                why = f"{slot.key!r}: {str(exc) or type(exc).__name__}"
                self._deliver(partial(self._loaded, slot, ImageError(why, reason="unreadable")))
                raise
            if self._timeout is not None and time.monotonic() - began > self._timeout:
                return  # given up, and another thread took this one's place
            self._deliver(partial(self._loaded, slot, loaded))

    def _began(self, slot: Slot, began: float) -> None:
        if slot in self._loading:
            self._loading[slot] = began, self._loading[slot][1]

    def _loaded(self, slot: Slot, image: Any) -> None:
        if self._loading.pop(slot, None) is not None:
            self._stream.fill(slot, image, time.monotonic())
            self._end_if_done()

    def _end(self, error: BaseException) -> None:
        """The source ended, or raised."""
        if self._ended is None:
            is_stop = isinstance(error, (StopIteration, StopAsyncIteration))
            self._ended = (None if is_stop else error,)
            self._end_if_done()

    def _end_if_done(self) -> None:
        if self._ended is not None and not self._loading:
            self._stream.end(self._ended[0])

    def give_up(self, now: float) -> None:
        """Fail what takes longer to be read than it may."""
        if self._timeout is None or not self._loading:
            return
        late = [
            (slot, source)
            for slot, (began, source) in self._loading.items()
            if now > began + self._timeout
        ]
        for slot, source in late:
            self._start_reader()
            if callable(source):
                what, advice = f"the function for key {slot.key!r} did not return", "more time"
            else:
                what, advice = f"{slot.key!r}: the file was not read", "files"
            text = f"{what} within {self._timeout:g} s"
            self._loaded(slot, ImageError(text, reason="unreadable", advice=advice))

    def wake_at(self) -> float:
        """When to ask `give_up`."""
        if self._timeout is None or not self._loading:
            return math.inf
        return min(began for began, _ in self._loading.values()) + self._timeout + 0.001

    def close(self, *, wait: bool = True) -> None:
        """Read nothing more."""
        self._closed = True
        if self._walker is not None:
            self._next()
        for _ in range(self._threads):
            self._jobs.put(None)
        if self._walker is not None and wait:
            self._walker.join(LEAVING)


def _split_pair(item: object, position: int) -> tuple[Any, Source]:
    """The key and the image of one item of a stream: a pair, or an image keyed by position."""
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
