"""Receives the messages of calls, and does not wait for them for ever.

grpc-python hands a unary call to a thread when its headers are there, and that thread then waits
for the message. Handlers that take a stream of requests begin at once and ask for the message
themselves: so a caller who never sends one can be told apart, and dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import grpc

from .alarm import Alarm
from .errors import cancelled, invalid_argument
from .turnstile import Turn

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds that a message keeps another from being received. Short enough that callers who send
nothing hold up the others for a moment only; those who do send are through by then, or on a line
that is too slow to fill the memory."""


class Bodies:
    """Receives messages, each within `seconds`; a call that takes longer is cancelled."""

    def __init__(self, seconds: float, name: str) -> None:
        self._late = Alarm(seconds, f"{name}-late")
        self._slow = Alarm(PATIENCE, f"{name}-slow")

    def receive(
        self, requests: Iterator[T], context: grpc.ServicerContext, turn: Turn | None = None
    ) -> T:
        """The call's one message. Lends `turn` to others while it does not come.

        Raises CANCELLED where there is none in time.
        """
        try:
            if turn is None:
                message = self.following(requests, context)
            else:
                with self._slow.over(turn.lend):
                    message = self.following(requests, context)
                turn.take_back()
        except grpc.RpcError as error:  # its caller has gone, or its time was up
            raise cancelled() from error
        if message is None:
            raise invalid_argument("The call ended without a request")
        return message

    def following(self, requests: Iterator[T], context: grpc.ServicerContext) -> T | None:
        """The next message, None after the last. Raises grpc.RpcError where none comes in time."""
        with self._late.over(context.cancel):
            return next(requests, None)

    def hurry(self) -> None:
        """The server stops: do not wait for those who send nothing."""
        self._late.shorten(PATIENCE)

    def close(self) -> None:
        self._late.close()
        self._slow.close()
