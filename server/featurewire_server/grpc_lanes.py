"""Where gRPC calls wait and work: each kind in a lane of its own, so that none holds up another."""

from __future__ import annotations

import logging
import time
from concurrent import futures

import grpc

from .errors import cancelled, shutting_down
from .grpc_bodies import Bodies
from .places import Places
from .turnstile import Turnstile

log = logging.getLogger(__name__)

SPARE_THREADS = 16
"""A call that is refused needs a thread for a moment, too."""


class Threads(futures.ThreadPoolExecutor):
    """Starts threads as they are needed; where the system gives no more, calls wait for others.

    A container bounds its threads. If `submit` raised for it, grpc-python would take no call ever
    again.
    """

    def __init__(self, most: int, name: str) -> None:
        super().__init__(most, name)
        self.submit(int).result()  # so that there is one to wait for

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError as error:
            log.warning("%d threads have to do: %s", len(self._threads), error)


class Lane:
    """So many calls of one kind, whose messages come within a time, of whom `width` work at once.

    `received`: how many messages are received or held at once; None: of all calls. `shared`: no
    host may have all the calls.
    """

    def __init__(
        self,
        name: str,
        *,
        calls: int,
        body_seconds: float,
        width: int,
        received: int | None = None,
        shared: bool = False,
    ) -> None:
        # A call whose caller has gone has left the lane, but may still work.
        self.pool = Threads(calls + width + SPARE_THREADS, name)
        self.bodies = Bodies(body_seconds, name)
        self.receiving = Turnstile(received or calls)
        self.working = Turnstile(width)
        self.places = Places(calls)
        self._shared = shared
        self._draining = False

    def enter(self, context: grpc.ServicerContext) -> None:
        """Be one of the lane's calls until the call is over and its answer has been sent.

        Raises RESOURCE_EXHAUSTED where there are too many, of its connection or of all, UNAVAILABLE
        while the server stops.
        """
        if self._draining:
            raise shutting_down()
        caller = _host(context.peer()) if self._shared else object()
        self.places.take(caller)
        if not context.add_callback(lambda: self.places.leave(caller)):
            self.places.leave(caller)
            raise cancelled()
        if self._draining:  # since: whoever waits for none may not have seen this one
            raise shutting_down()

    def drain(self) -> None:
        """Refuse calls from here on; those that are there go on."""
        self._draining = True

    def wait_for_none(self, until: float) -> None:
        """Return when no call is there, or at `until`, in seconds of `time.monotonic()`."""
        self.places.wait_for_none(max(until - time.monotonic(), 0))

    def close(self) -> None:
        self.bodies.close()
        self.pool.shutdown(wait=False)


def _host(peer: str) -> str:
    """Of `ipv4:10.0.0.1:4711`, without the port: a host may open any number of connections."""
    return peer.rpartition(":")[0] or peer
