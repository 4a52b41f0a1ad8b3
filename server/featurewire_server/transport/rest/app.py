"""The REST API as an ASGI application, which receives bodies and sends answers."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from featurewire_server.api import BULK, CLASS, Call
from featurewire_server.batching.task import Terms
from featurewire_server.common.admission import Admission, Hold
from featurewire_server.common.errors import ServingError, deadline_exceeded
from featurewire_server.transport.rest.exchange import Answer, Request

ADMIT_BYTES = 4 << 10
"""The smallest step in which the bytes of a body are admitted as they arrive. So announcing a long
body does not reserve memory, and a client that has sent one byte holds at most this."""
BODY_IDLE_SECONDS = 30.0
BODY_SECONDS = 600.0
CLOSE = (("Connection", "close"),)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Application:
    """Calls `handler` for each request.

    `refuse` makes the answer if a ServingError ends a request before it reaches the handler, for
    example if the memory for bodies is full. `refusal` makes the answer if HTTP forbids a request.
    """

    def __init__(
        self,
        handler: Callable[[Request], Awaitable[Answer]],
        *,
        refuse: Callable[[Request, ServingError], Answer],
        refusal: Callable[[Request, int, str], Answer],
        admission: Admission,
        working: int,
        timeout: float,
        max_body_bytes: int,
    ) -> None:
        """`working`: maximum number of POST requests that are worked on; `timeout`: seconds per
        answer."""
        self.stopping = False
        """Whether connections should close after their next answer."""
        self._handler = handler
        self._refuse = refuse
        self._refusal = refusal
        self._admission = admission
        self._working = asyncio.Semaphore(working)
        self._timeout = timeout
        # Clients may send their bodies slowly, and the bytes are held for all that time. So bodies
        # get only half of the limit. The other half is for gRPC and for parsing complete bodies.
        self._bodies = Admission(
            admission.limit // 2,
            what="bytes of REST requests",
            source="half of --max_inflight_bytes",
        )
        self._max_body_bytes = min(max_body_bytes, self._bodies.limit)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        bulk = headers.get(CLASS.encode()) == BULK.encode()
        request = Request(
            method=scope["method"],
            path=_path(scope),
            encoding=headers.get(b"content-encoding", b"").decode("latin-1").lower(),
            json_bytes=headers.get(b"inference-header-content-length", b"").decode("latin-1"),
            origin=headers.get(b"origin", b"").decode("latin-1"),
            call=Call(
                terms=Terms(caller=scope["client"], bulk=bulk),
                held=self._admission.hold(),
                entrypoint="REST",
            ),
        )
        try:
            with suppress(_Gone):
                await self._send(await self._exchange(request, scope, headers, receive), send)
        finally:
            request.call.held.resize(0)

    async def _exchange(
        self, request: Request, scope: Message, headers: dict[bytes, bytes], receive: Receive
    ) -> Answer:
        if scope["http_version"] not in ("1.0", "1.1"):
            return self._refusal(request, 505, "Only HTTP/1.0 and HTTP/1.1 are supported")
        limit = self._max_body_bytes
        announced = int(headers.get(b"content-length", limit))
        body, holds = bytearray(), (self._bodies.hold(), request.call.held)
        try:
            if announced > limit or not await self._receive(body, announced, holds, receive):
                return self._refusal(request, 413, f"The body is larger than {limit} bytes")
            request.body = bytes(body)
            request.call.terms.deadline = time.monotonic() + self._timeout
            return await self._answer(request, receive)
        except ServingError as error:
            return self._refuse(request, error)
        except TimeoutError:
            answer = self._refusal(request, 408, "The body did not arrive in time")
            return replace(answer, headers=CLOSE)
        finally:
            holds[0].resize(0)

    async def _receive(
        self, body: bytearray, announced: int, holds: tuple[Hold, ...], receive: Receive
    ) -> bool:
        """Receive the whole body; False if it is too large.

        Raises TimeoutError if the body comes too slowly, RESOURCE_EXHAUSTED if memory is short.
        """
        async with asyncio.timeout(BODY_SECONDS):
            more = True
            while more:
                async with asyncio.timeout(BODY_IDLE_SECONDS):
                    message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Gone
                wanted = len(body) + len(message["body"])
                if wanted > self._max_body_bytes:
                    return False
                for hold in holds:
                    if wanted > hold.size:
                        hold.resize(max(wanted, min(hold.size + ADMIT_BYTES, announced)))
                body += message["body"]
                more = message.get("more_body", False)
        return True

    async def _answer(self, request: Request, receive: Receive) -> Answer:
        """The handler's answer. Raises _Gone if the client leaves before that."""
        answer = asyncio.ensure_future(self._in_turn(request))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise _Gone
            return answer.result()
        finally:
            if not answer.done():  # the client has left, or the server stops
                answer.cancel()
                await asyncio.wait({answer})
            gone.cancel()

    async def _in_turn(self, request: Request) -> Answer:
        # Probes and scrapes are answered even if POST requests take all places.
        if request.method != "POST":
            return await self._handler(request)
        try:
            async with asyncio.timeout_at(request.call.terms.deadline):
                await self._working.acquire()
        except TimeoutError:
            return self._refuse(request, deadline_exceeded())
        try:
            return await self._handler(request)
        finally:
            self._working.release()

    async def _send(self, answer: Answer, send: Send) -> None:
        headers = [
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            *answer.headers,
            *(CLOSE if self.stopping else ()),
        ]
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [(name.encode(), value.encode()) for name, value in headers],
            }
        )
        await send({"type": "http.response.body", "body": answer.body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})  # after the first was sent


def _path(scope: Message) -> str:
    """The path and query of a request. Proxies may send them after `http://host`."""
    path = scope["raw_path"].decode("ascii")
    whole = _ABSOLUTE.match(path)
    if whole:
        path = path[whole.end() :] or "/"
    query = scope["query_string"].decode("ascii")
    return f"{path}?{query}" if query else path


_ABSOLUTE = re.compile("https?://[^/?#]*", re.IGNORECASE)


class _Gone(Exception):
    """The client has left."""


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
