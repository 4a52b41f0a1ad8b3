"""Limits the number of calls of one kind, and the time that their messages may take.

Our handlers take streams of requests. Such a handler starts as soon as the headers have arrived,
and then reads the message. So the server can detect and drop a call that never sends a message.
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

PATIENCE_SECONDS = 5.0
"""Seconds after which a late message gives its place to another call, so that silent callers delay
others only briefly. Also the time limit for messages once the server is stopping."""


class FairSlots:
    """A limited number of places, shared fairly between callers.

    A caller may take a place if it holds fewer places than are free. So a single caller gets up to
    half of them. This is the dynamic threshold of shared buffers (Choudhury and Hahne, 1998): if N
    callers take as many places as they can, each gets 1 / (N + 1) of them, and the same number is
    left for the next caller.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: Counter[Hashable] = Counter()
        self._count = 0

    @property
    def taken(self) -> int:
        return self._count

    def take(self, caller: Hashable) -> None:
        """Take a place. Raises RESOURCE_EXHAUSTED if `caller` may not."""
        if self._count >= self._most:
            raise resource_exhausted(
                f"{self._most} calls of this kind are waiting already: send less at once, or add "
                "servers"
            )
        mine, free = self._held[caller], self._most - self._count
        if mine >= free:
            raise resource_exhausted(
                f"this host has {mine} calls of this kind waiting already; the {free} free "
                "places are for other hosts: send less at once, or add servers"
            )
        self._held[caller] += 1
        self._count += 1

    def leave(self, caller: Hashable) -> None:
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]
        self._count -= 1


class Permit:
    """One place in a semaphore; the holder may release it before the block ends."""

    def __init__(self, semaphore: asyncio.Semaphore) -> None:
        self._semaphore = semaphore
        self._held = False

    async def __aenter__(self) -> Permit:
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
    """Limits the calls of one kind, each from its start until its answer is sent.

    Use it on the event loop only.
    """

    def __init__(
        self,
        calls: int,
        *,
        seconds: float,
        receiving: int | None = None,
        working: int | None = None,
        shared: bool = False,
    ) -> None:
        """`calls`: maximum number of calls; `seconds`: time limit for receiving a message;
        `receiving` and `working`: maximum number of calls in these phases, None for all; `shared`:
        share the calls fairly between hosts, see `FairSlots`.
        """
        self.places = FairSlots(calls)
        self._shared = shared
        self._seconds = seconds
        self._receiving = asyncio.Semaphore(receiving or calls)
        self._working = asyncio.Semaphore(working or calls)
        self._draining = False
        self._none = asyncio.Event()
        self._waiting: set[asyncio.Timeout] = set()

    def receiving(self) -> Permit:
        return Permit(self._receiving)

    def working(self) -> Permit:
        return Permit(self._working)

    def enter(self, context: grpc.aio.ServicerContext) -> None:
        """Count a call until it ends.

        Raises RESOURCE_EXHAUSTED if its host or the server has too many calls, UNAVAILABLE if the
        server is stopping.
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

    async def message(self, context: grpc.aio.ServicerContext, receiving: Permit) -> Any:
        """Receive the call's only message. Raises CANCELLED if it takes too long.

        Releases `receiving` after PATIENCE seconds, so that other calls can be received.
        """
        patience = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, receiving.release)
        try:
            message = await self.next_message(context)
        finally:
            patience.cancel()
        if message is None:
            raise invalid_argument("The call ended without a request")
        return message

    async def next_message(self, context: grpc.aio.ServicerContext) -> Any:
        """Receive the next message; None after the last. Raises CANCELLED if it takes too long."""
        timeout = asyncio.timeout(self._seconds)
        try:
            async with timeout:
                self._waiting.add(timeout)
                message = await context.read()
        except TimeoutError:
            raise cancelled("The request did not arrive in time") from None
        finally:
            self._waiting.discard(timeout)
        return None if message is grpc.aio.EOF else message

    def drain(self) -> None:
        """Refuse new calls, and give open calls up to PATIENCE seconds to send their messages."""
        self._draining = True
        self._seconds = min(self._seconds, PATIENCE_SECONDS)
        latest = asyncio.get_running_loop().time() + self._seconds
        for timeout in self._waiting:
            timeout.reschedule(min(timeout.when() or latest, latest))

    async def wait_for_none(self) -> None:
        """Return when all calls have ended."""
        while self.places.taken:
            self._none.clear()
            await self._none.wait()


def _host(peer: str) -> str:
    """The peer without its port, such as `ipv4:10.0.0.1`.

    Limits apply per host, because a host may open any number of connections.
    """
    return peer.rpartition(":")[0] or peer
