"""One HTTP/1.1 connection: reads requests, hands them over, writes the answers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from http import HTTPStatus

import h11

from ..cancellation import BULK, CLASS, Cancellation
from ..errors import ServingError, invalid_argument
from . import encode
from .bodies import Bodies
from .handler import Answer, Request

READ_BYTES = 64 << 10
MAX_HEADER_BYTES = 16 << 10
#: A body's bytes are admitted as they come, those of a trickle in steps: announcing a length
#: holds nothing, and a client that has sent one byte holds no more than this.
ADMIT_BYTES = 4 << 10
KEEP_ALIVE_SECONDS = 75.0
HEADER_SECONDS = 10.0
BODY_IDLE_SECONDS = 30.0
BODY_SECONDS = 600.0
SEND_SECONDS = 60.0
LINGER_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Service:
    """What a connection needs of its server."""

    answer: Callable[[Request], Awaitable[Answer]]
    refuse: Callable[[str, str, ServingError], Answer]
    """The answer to a request (method and path) whose body could not be taken."""
    bodies: Bodies
    stopping: Callable[[], bool]
    """Whether connections are to close after their next answer."""
    timeout: float
    """Seconds that an answer may take."""
    max_body_bytes: int


class Connection:
    """One client: requests one after the other, until either side has had enough."""

    def __init__(
        self, service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._service = service
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
        self.answering = False
        self.idle_since: float | None = None
        """`time.monotonic()` since when not a byte of a request has come; None within one."""

    async def serve(self) -> None:
        while True:
            try:
                open_ = await self._exchange()
            except h11.RemoteProtocolError as error:
                await self.refuse(Answer(status=error.error_status_hint, body=_error(str(error))))
                return
            if not open_ or self._http.our_state is not h11.DONE or self._service.stopping():
                return
            if self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def _exchange(self) -> bool:
        """One request and its answer; False when the client has closed."""
        self.idle_since = time.monotonic()
        try:
            head = await self._event(KEEP_ALIVE_SECONDS, HEADER_SECONDS)
        finally:
            self.idle_since = None
        if not isinstance(head, h11.Request):
            return False
        self.answering = True
        try:
            refusal = await self._admit_and_answer(head)
            if refusal is not None:
                await self.refuse(refusal)
            return refusal is None
        finally:
            self.answering = False

    async def _admit_and_answer(self, head: h11.Request) -> Answer | None:
        """Read the body and answer; if the body cannot be taken, the answer to that instead."""
        if head.http_version not in (b"1.0", b"1.1"):
            return Answer(status=505, body=_error("Only HTTP/1.0 and HTTP/1.1 are spoken here"))
        with contextlib.ExitStack() as admitted:
            try:
                body = await self._body(head, admitted)
            except ServingError as error:
                return self._service.refuse(*_target(head), error)
            except _TooLarge:
                text = f"The body is larger than {self._service.max_body_bytes} bytes"
                return Answer(status=413, body=_error(text))
            answer = await self._answer(head, body)
            await self._send(answer, with_body=head.method != b"HEAD")
        return None

    async def _body(self, head: h11.Request, admitted: contextlib.ExitStack) -> bytes:
        limit = self._service.max_body_bytes
        announced = int(dict(head.headers).get(b"content-length", limit))
        if announced > limit:
            raise _TooLarge
        body = bytearray()
        held = 0
        deadline = time.monotonic() + BODY_SECONDS
        while True:
            if time.monotonic() > deadline:
                raise invalid_argument("The body did not come within its time")
            event = await self._event(BODY_IDLE_SECONDS, BODY_IDLE_SECONDS)
            if isinstance(event, h11.EndOfMessage):
                return bytes(body)
            if not isinstance(event, h11.Data):
                raise ConnectionError
            size = len(body) + len(event.data)
            if size > limit:
                raise _TooLarge
            if size > held:
                step = max(size - held, min(ADMIT_BYTES, announced - held))
                admitted.enter_context(self._service.bodies.admit(step))
                held += step
            body += event.data

    async def _answer(self, head: h11.Request, body: bytes) -> Answer:
        """The handler's answer; its `cancelled` is set if the client closes meanwhile."""
        encoding = dict(head.headers).get(b"content-encoding", b"").decode("latin-1").lower()
        if encoding not in ("", "identity", "gzip"):
            text = f"Content-Encoding {encoding} is not supported; gzip is"
            return Answer(status=415, body=_error(text))
        bulk = dict(head.headers).get(CLASS.encode()) == BULK.encode()
        cancelled = Cancellation(caller=self, bulk=bulk)
        method, path = _target(head)
        request = Request(
            method=method,
            path=path,
            encoding=encoding,
            body=body,
            cancelled=cancelled,
            deadline=time.monotonic() + self._service.timeout,
        )
        answer = asyncio.ensure_future(self._service.answer(request))
        watch = asyncio.ensure_future(self._reader.read(READ_BYTES))
        try:
            await asyncio.wait({answer, watch}, return_when=asyncio.FIRST_COMPLETED)
            if watch.done():
                early = b"" if watch.exception() else watch.result()
                if not early:
                    cancelled.set()
                self._http.receive_data(early)
            return await answer
        except asyncio.CancelledError:
            cancelled.set()
            raise
        finally:
            watch.cancel()
            await asyncio.wait({watch})  # a reader takes no second `read` before the first ended

    async def _event(self, first: float, then: float) -> object:
        """The next HTTP event; `first` seconds for its first bytes, `then` for all further."""
        deadline = time.monotonic() + first
        while True:
            event = self._http.next_event()
            if event is h11.PAUSED:
                return h11.ConnectionClosed()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                await self._write(self._http.send(go_on))
            if self._http.trailing_data[0]:
                self.idle_since = None
                deadline = min(deadline, time.monotonic() + then)
            left = max(deadline - time.monotonic(), 0.001)
            self._http.receive_data(
                await asyncio.wait_for(self._reader.read(READ_BYTES), timeout=left)
            )

    async def _send(self, answer: Answer, *, with_body: bool = True) -> None:
        headers = [
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            *answer.headers,
        ]
        if self._service.stopping():
            headers.append(("Connection", "close"))
        head = h11.Response(
            status_code=answer.status, headers=headers, reason=_reason(answer.status)
        )
        data = self._http.send(head) or b""
        if with_body:
            data += self._http.send(h11.Data(data=answer.body)) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        await self._write(data)

    async def refuse(self, answer: Answer) -> None:
        """Answer although the request is not read to its end, and let the client read that."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        await self._send(replace(answer, headers=(*answer.headers, ("Connection", "close"))))
        # Closing with unread bytes resets the connection, and the client may lose the answer.
        self._writer.write_eof()
        deadline = time.monotonic() + LINGER_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            if not await asyncio.wait_for(self._reader.read(READ_BYTES), timeout=left):
                return

    async def _write(self, data: bytes | None) -> None:
        self._writer.write(data or b"")
        await asyncio.wait_for(self._writer.drain(), timeout=SEND_SECONDS)


class _TooLarge(Exception):
    pass


def _target(head: h11.Request) -> tuple[str, str]:
    """Method, and path without its query."""
    return head.method.decode("ascii"), head.target.decode("ascii").partition("?")[0]


def _error(text: str) -> bytes:
    return encode.error(text).encode()


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Client Closed Request" if status == 499 else ""
