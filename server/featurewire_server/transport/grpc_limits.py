"""How many calls of one kind there may be, and how long their messages may take.

A handler that takes a stream of requests begins when the headers are there and asks for the message
itself. So a caller who never sends one can be told apart, and dropped.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable
from typing import Any

import grpc

from featurewire_server.common.errors import (
    cancelled,
    invalid_argument,
    resource_exhausted,
    shutting_down,
)

PATIENCE = 5.0
"""Seconds that a message may take before it no longer keeps others from being received: callers who
send nothing hold up the others for a moment only. Also what is left of the time for messages when
the server stops."""


class Places:
    """A caller may take a place while it holds fewer than are free: half of all, if it is alone.

    This is the dynamic threshold of shared buffers (Choudhury and Hahne, 1998): of N callers who
    take what they can get, each has 1 / (N + 1) in the end, and as much is free for the next.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: Counter[Hashable] = Counter()
        self._count = 0

    @property
    def taken(self) -> int:
        return self._count

    def take(self, caller: Hashable) -> None:
        """Take a place. Raises RESOURCE_EXHAUSTED."""
        if self._count >= self._most:
            raise resource_exhausted(f"{self._most} calls of this kind are waiting already")
        mine, free = self._held[caller], self._most - self._count
        if mine >= free:
            raise resource_exhausted(
                f"{mine} calls of this kind wait for this host already, and the "
                f"{free} places that are free are for others"
            )
        self._held[caller] += 1
        self._count += 1

    def leave(self, caller: Hashable) -> None:
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]
        self._count -= 1


class Slot:
    """One place in a semaphore, which its holder may give back early."""

    def __init__(self, semaphore: asyncio.Semaphore) -> None:
        self._semaphore = semaphore
        self._held = False

    async def __aenter__(self) -> Slot:
        await self._semaphore.acquire()
        self._held = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        if self._held:
            self._held = False
            self._semaphore.release()


class CallLimit:
    """So many calls of one kind, each counted until its answer has been sent; for the event loop
    only."""

    def __init__(
        self,
        calls: int,
        *,
        seconds: float,
        receiving: int | None = None,
        working: int | None = None,
        shared: bool = False,
    ) -> None:
        """`seconds`: for the message of a call to come in; `receiving`, `working`: how many calls
        may receive or hold their messages at once, and work; None: all; `shared`: no host may have
        all the calls.
        """
        self.places = Places(calls)
        self._shared = shared
        self._seconds = seconds
        self._receiving = asyncio.Semaphore(receiving or calls)
        self._working = asyncio.Semaphore(working or calls)
        self._draining = False
        self._none = asyncio.Event()
        self._waiting: set[asyncio.Timeout] = set()

    def receiving(self) -> Slot:
        return Slot(self._receiving)

    def working(self) -> Slot:
        return Slot(self._working)

    def enter(self, context: grpc.aio.ServicerContext) -> None:
        """Count a call until it is over.

        Raises RESOURCE_EXHAUSTED where there are too many, of its host or of all, UNAVAILABLE while
        the server stops.
        """
        if self._draining:
            raise shutting_down()
        caller = _host(context.peer()) if self._shared else object()
        self.places.take(caller)
        context.add_done_callback(lambda _: self._leave(caller))

    def _leave(self, caller: object) -> None:
        self.places.leave(caller)
        if not self.places.taken:
            self._none.set()

    async def message(self, context: grpc.aio.ServicerContext, receiving: Slot) -> Any:
        """The call's one message; raises CANCELLED where it does not come within its time.

        Gives `receiving` back early while the message does not come.
        """
        patience = asyncio.get_running_loop().call_later(PATIENCE, receiving.release)
        try:
            message = await self.next_message(context)
        finally:
            patience.cancel()
        if message is None:
            raise invalid_argument("The call ended without a request")
        return message

    async def next_message(self, context: grpc.aio.ServicerContext) -> Any:
        """The next message, None after the last; raises as `message` does."""
        timeout = asyncio.timeout(self._seconds)
        try:
            async with timeout:
                self._waiting.add(timeout)
                message = await context.read()
        except TimeoutError:
            raise cancelled("The request did not come within its time") from None
        finally:
            self._waiting.discard(timeout)
        return None if message is grpc.aio.EOF else message

    def drain(self) -> None:
        """Refuse calls from here on, and wait for the messages of others for a moment only."""
        self._draining = True
        self._seconds = min(self._seconds, PATIENCE)
        latest = asyncio.get_running_loop().time() + self._seconds
        for timeout in self._waiting:
            timeout.reschedule(min(timeout.when() or latest, latest))

    async def wait_for_none(self) -> None:
        """Return when no call is left."""
        while self.places.taken:
            self._none.clear()
            await self._none.wait()


def _host(peer: str) -> str:
    """Of `ipv4:10.0.0.1:4711`, without the port: a host may open any number of connections."""
    return peer.rpartition(":")[0] or peer
