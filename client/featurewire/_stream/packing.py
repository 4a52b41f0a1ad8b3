"""The images of a stream: their order, and the requests they are packed into."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from featurewire._config import StreamConfig
from featurewire._embedding import Result
from featurewire._images import Buffer
from featurewire._wire.predict import Codec

__all__ = ["Order", "Pack", "Packing", "Slot"]


@dataclass(eq=False)
class Slot:
    """The place of one image in the order of results."""

    key: Any
    number: int
    result: Result[Any] | None = None


class Order:
    """Gives results in the order in which their places were taken."""

    def __init__(self) -> None:
        self._slots: deque[Slot] = deque()
        self.opened = 0

    def __len__(self) -> int:
        return len(self._slots)

    def open(self, key: Any) -> Slot:
        slot = Slot(key, self.opened)
        self.opened += 1
        self._slots.append(slot)
        return slot

    def cut(self, at: int) -> None:
        """Drop the results from place `at` on."""
        while self._slots and self._slots[-1].number >= at:
            self._slots.pop()

    def take(self) -> list[Result[Any]]:
        ready = []
        while self._slots and (result := self._slots[0].result) is not None:
            ready.append(result)
            self._slots.popleft()
        return ready


@dataclass(eq=False)
class Pack:
    """Images that travel together."""

    opened: float
    slots: list[Slot] = field(default_factory=list)
    images: list[Buffer] = field(default_factory=list)
    size: int = 0
    alone: bool = False
    """To be sent while nothing else of the client is in flight."""
    expired: int = 0
    """Attempts that had no reply in time, from a server that was there."""
    codec: Codec | None = None
    """That built its request."""
    redirected: int = 0
    """How often a version answered that gives no vectors of the space that is wanted."""

    @property
    def first(self) -> int:
        return min(slot.number for slot in self.slots)

    def add(self, slot: Slot, image: Buffer) -> None:
        self.slots.append(slot)
        self.images.append(image)
        self.size += len(image)

    def parts(self, size: int) -> list[Pack]:
        parts = []
        for start in range(0, len(self.images), size):
            part = Pack(self.opened)
            end = start + size
            for slot, image in zip(self.slots[start:end], self.images[start:end], strict=True):
                part.add(slot, image)
            parts.append(part)
        return parts


class Packing:
    """Fills requests, each full or as old as `linger`, and queues them."""

    def __init__(self, config: StreamConfig) -> None:
        self.per_request = config.images_per_request
        self._bytes = config.bytes_per_request
        self._linger = config.linger
        self._open: Pack | None = None
        self._ready: deque[Pack] = deque()

    def cut(self, at: int) -> None:
        """Drop requests whose images are all at place `at` or after it."""
        self.close()
        self._ready = deque(pack for pack in self._ready if pack.first < at)

    @property
    def front(self) -> Pack | None:
        """The next request to send."""
        return self._ready[0] if self._ready else None

    def add(self, slot: Slot, image: Buffer, now: float) -> None:
        pack = self._open
        if pack is not None and pack.size + len(image) > self._bytes:
            self.close()
            pack = None
        if pack is None:
            pack = self._open = Pack(now)
        pack.add(slot, image)
        if len(pack.images) >= self.per_request:
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
        """When the request that is being filled goes as it is."""
        return None if self._open is None else self._open.opened + self._linger

    def pop(self) -> Pack:
        """The front; no larger than the server is known to take."""
        pack = self._ready.popleft()
        if len(pack.images) > self.per_request:  # packed before that was known
            self.put_back(pack.parts(self.per_request))
            pack = self._ready.popleft()
        return pack

    def put_back(self, parts: Iterable[Pack]) -> None:
        self._ready.extendleft(reversed(list(parts)))
