"""Packs the images of a stream into requests, and puts the results back in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from featurewire._config import StreamConfig
from featurewire._embedding import Result
from featurewire._images import Buffer
from featurewire._wire.predict import Codec


@dataclass(eq=False)
class Entry:
    """One image of the stream: its key, its position and, later, its result."""

    key: Any
    number: int
    result: Result[Any] | None = None


class ReorderBuffer:
    """Returns results in the order of their images, whatever the order of the replies."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self.opened = 0

    def __len__(self) -> int:
        return len(self._entries)

    def open(self, key: Any) -> Entry:
        entry = Entry(key, self.opened)
        self.opened += 1
        self._entries.append(entry)
        return entry

    def cut(self, at: int) -> None:
        """Drop the images from position `at` on."""
        while self._entries and self._entries[-1].number >= at:
            self._entries.pop()

    def take(self) -> list[Result[Any]]:
        ready = []
        while self._entries and (result := self._entries[0].result) is not None:
            ready.append(result)
            self._entries.popleft()
        return ready


@dataclass(eq=False)
class PendingRequest:
    """The images of one request that was not answered yet."""

    opened: float
    entries: list[Entry] = field(default_factory=list)
    images: list[Buffer] = field(default_factory=list)
    size: int = 0
    exclusive: bool = False
    """Send it only if no other call of the client is in flight."""
    expired: int = 0
    """Number of attempts that timed out although the server was reachable."""
    codec: Codec | None = None
    """The codec that built the request."""
    redirected: int = 0
    """Number of answers in the wrong vector space."""

    @property
    def first(self) -> int:
        return min(entry.number for entry in self.entries)

    def add(self, entry: Entry, image: Buffer) -> None:
        self.entries.append(entry)
        self.images.append(image)
        self.size += len(image)

    def parts(self, size: int) -> list[PendingRequest]:
        parts = []
        for start in range(0, len(self.images), size):
            part = PendingRequest(self.opened)
            end = start + size
            for entry, image in zip(self.entries[start:end], self.images[start:end], strict=True):
                part.add(entry, image)
            parts.append(part)
        return parts


class RequestBuilder:
    """Fills requests and queues them. A request is ready if it is full or older than `linger`."""

    def __init__(self, config: StreamConfig) -> None:
        self.per_request = config.images_per_request
        self._bytes = config.bytes_per_request
        self._linger = config.linger
        self._open: PendingRequest | None = None
        self._ready: deque[PendingRequest] = deque()

    def cut(self, at: int) -> None:
        """Drop the requests whose first image is at position `at` or later."""
        self.close()
        self._ready = deque(pending for pending in self._ready if pending.first < at)

    @property
    def front(self) -> PendingRequest | None:
        """The next request to send."""
        return self._ready[0] if self._ready else None

    def add(self, entry: Entry, image: Buffer, now: float) -> None:
        pending = self._open
        if pending is not None and pending.size + len(image) > self._bytes:
            self.close()
            pending = None
        if pending is None:
            pending = self._open = PendingRequest(now)
        pending.add(entry, image)
        if len(pending.images) >= self.per_request:
            self.close()
        else:
            self.close_due(now)

    def close(self) -> None:
        if self._open is not None:
            self._ready.append(self._open)
            self._open = None

    def close_due(self, now: float) -> None:
        if self._open is not None and now - self._open.opened > self._linger:
            self.close()

    def due_at(self) -> float | None:
        """When the request that is being filled is sent, even if it is not full."""
        return None if self._open is None else self._open.opened + self._linger

    def pop(self) -> PendingRequest:
        """Remove and return the first request, after splitting it to the current maximum size."""
        pending = self._ready.popleft()
        if len(pending.images) > self.per_request:  # filled before the server named its limit
            self.put_back(pending.parts(self.per_request))
            pending = self._ready.popleft()
        return pending

    def put_back(self, parts: Iterable[PendingRequest]) -> None:
        self._ready.extendleft(reversed(list(parts)))
