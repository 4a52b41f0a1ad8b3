"""Receives the one message of a call, and does not wait for it for ever.

grpc-python hands a unary call to a thread when its headers are there, and that thread then waits
for the message. Handlers that take a stream of requests begin at once and ask for the message
themselves: so a caller who never sends one can be told apart, and dropped.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator

import grpc

from .errors import cancelled, invalid_argument


class Bodies:
    """Receives messages, each within `seconds`; a call that takes longer is cancelled."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # All have the same time, so the first to come is the first whose time is up.
        self._open: deque[_Reception] = deque()
        self._changed = threading.Condition()
        self._closed = False
        threading.Thread(target=self._watch, name="grpc-bodies", daemon=True).start()

    def receive(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """The call's message. Raises CANCELLED where there is none in time."""
        reception = _Reception(context, time.monotonic() + self._seconds)
        with self._changed:
            self._open.append(reception)
            if len(self._open) == 1:
                self._changed.notify()
        try:
            data = next(requests, None)
        except grpc.RpcError as error:  # its caller has gone, or its time was up
            raise cancelled() from error
        finally:
            reception.done = True
        if data is None:
            raise invalid_argument("The call ended without a request")
        return data

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _watch(self) -> None:
        while True:
            with self._changed:
                while self._open and self._open[0].done:
                    self._open.popleft()
                if self._closed:
                    return
                if not self._open:
                    self._changed.wait()
                    continue
                first = self._open[0]
                left = first.until - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                self._open.popleft()
            if not first.done:
                first.context.cancel()


class _Reception:
    def __init__(self, context: grpc.ServicerContext, until: float) -> None:
        self.context = context
        self.until = until
        self.done = False
