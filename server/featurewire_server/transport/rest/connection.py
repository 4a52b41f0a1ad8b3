"""uvicorn's HTTP/1.1 connections, with additional limits.

Clients that do not send or do not read are dropped after a time, and idle connections are closed
to make room for new clients.
"""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from featurewire_server.transport.rest import encode

MAX_CONNECTIONS = 1000
IDLE_SECONDS = 1.0
"""A connection idle for this time may be closed to make room. Earlier, a request may already be on
its way."""
MAX_REFUSALS = 100
"""Maximum number of connections that are being answered 503 because the server is full. Further
ones are closed without an answer."""

MAX_HEADER_BYTES = 16 << 10
KEEP_ALIVE_SECONDS = 75.0
HEADER_SECONDS = 10.0
SEND_SECONDS = 60.0
LINGER_SECONDS = 2.0

IDLE, HEADER, REST_OF_BODY = range(3)
"""What a connection waits for: a request, the rest of a header, the rest of a body."""


class Http(h11.Connection):
    """Keeps HTTP/1.0 connections open for clients that ask for it, such as `ab -k` and old proxies.

    h11 closes them after each answer.
    """

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        event = super().next_event()
        if isinstance(event, h11.Request) and event.http_version == b"1.0":
            self._cstate.keep_alive = _says(event, b"keep-alive")
        return event

    def send(self, event: Any) -> Any:
        keeps = self.their_http_version == b"1.0" and self._cstate.keep_alive
        if keeps and isinstance(event, h11.Response) and not _says(event, b"close"):
            headers = [*event.headers, (b"Connection", b"keep-alive")]
            event = h11.Response(
                status_code=event.status_code, headers=headers, reason=event.reason
            )
        return super().send(event)


def _says(event: h11.Request | h11.Response, word: bytes) -> bool:
    """Whether `word` is in the Connection header."""
    values = [value for name, value in event.headers if name == b"connection"]
    return word in [each.strip().lower() for value in values for each in value.split(b",")]


class Connection(H11Protocol):
    """A connection with one client, which sends one request after the other."""

    _told = 0
    """Number of connections that are being answered 503 because the server is full."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.conn = Http(h11.SERVER, MAX_HEADER_BYTES)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        room = len(self.connections) < MAX_CONNECTIONS or self._close_an_idle_one()
        super().connection_made(transport)
        self._refused = self._is_told = False
        self._waits_for: int | None = None
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None
        if room:
            self._watch()
            return
        self.connections.discard(self)
        if Connection._told < MAX_REFUSALS:
            self._is_told = True
            Connection._told += 1
            self._refuse(503, f"The server has {MAX_CONNECTIONS} connections and all are busy")
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        Connection._told -= self._is_told
        for timer in (self._timer, self._sending):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            super().data_received(data)
            self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        too_large = len(self.conn.trailing_data[0]) > MAX_HEADER_BYTES
        self._refuse(431 if too_large else 400, msg)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._sending = self.loop.call_later(SEND_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._sending is not None:
            self._sending.cancel()

    def _all(self) -> list[Connection]:
        return [each for each in self.connections if isinstance(each, Connection)]

    def _watch(self) -> None:
        """Set a timer that closes the connection if the expected data does not arrive in time."""
        if self.cycle is not None and not self.cycle.response_complete:
            waits_for = None  # the application is answering
        elif self.conn.their_state is h11.SEND_BODY:
            waits_for = REST_OF_BODY
        else:
            waits_for = HEADER if self.conn.trailing_data[0] else IDLE
        if waits_for == self._waits_for or self.transport.is_closing():
            return
        # We do not use the loop's time, because uvloop's has a resolution of 1 ms.
        self._waits_for, self._since = waits_for, time.monotonic()
        if self._timer is not None:
            self._timer.cancel()
        if waits_for is not None:
            seconds = (KEEP_ALIVE_SECONDS, HEADER_SECONDS, LINGER_SECONDS)[waits_for]
            self._timer = self.loop.call_later(seconds, self.transport.close)

    def _close_an_idle_one(self) -> bool:
        """Close the connection that has been idle longest; False if all are busy."""
        idle = [each for each in self._all() if each._waits_for == IDLE]
        longest = min(idle, key=lambda each: each._since, default=None)
        if longest is None or time.monotonic() - longest._since < IDLE_SECONDS:
            return False
        self.connections.discard(longest)  # at once, so that the next client closes another one
        longest.transport.close()
        return True

    def _refuse(self, status: int, text: str) -> None:
        """Answer before the request is read completely, and give the client time to read that.

        If we closed with unread bytes, the connection would be reset and the client might lose
        the answer.
        """
        body = encode.error(text).encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self._refused = True
        if self._timer is not None:
            self._timer.cancel()
        self.transport.write(head.encode() + body)
        self.transport.write_eof()
        self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)
