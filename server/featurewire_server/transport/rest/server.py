"""Serves REST over HTTP/1.1 with uvicorn, on the transports' event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass

import uvicorn

from featurewire_server.api import Api
from featurewire_server.common.loop import run
from featurewire_server.transport.rest.app import Application
from featurewire_server.transport.rest.connection import (
    KEEP_ALIVE_SECONDS,
    MAX_HEADER_BYTES,
    Connection,
)
from featurewire_server.transport.rest.embeddings import EmbeddingsEndpoint
from featurewire_server.transport.rest.exchange import Endpoint
from featurewire_server.transport.rest.handler import Handler
from featurewire_server.transport.rest.open_inference import OpenInferenceEndpoint

#: The largest body. Images in base64 take a third more than their bytes.
MAX_BODY_BYTES = 128 << 20


@dataclass(frozen=True, kw_only=True)
class RestConfig:
    """Where and how to listen."""

    port: int = 0
    """0: any free port."""
    threads: int = 1000
    """Requests that work at once; the others wait."""
    timeout_seconds: float = 30.0
    """For the answer to one request."""
    cors: bool = False
    """Whether pages of other origins may ask."""
    open_inference: bool = False
    """Answer the Open Inference Protocol as well."""
    openai_embeddings: bool = False
    """Answer OpenAI's embeddings requests as well."""


def start(api: Api, config: RestConfig) -> HttpServer:
    """Serve `api`; the page of its metrics too, if it has one.

    Raises OSError, naming the port, when it is taken.
    """
    endpoints: list[Endpoint] = []
    if config.open_inference:
        endpoints.append(OpenInferenceEndpoint(api, MAX_BODY_BYTES))
    if config.openai_embeddings:
        endpoints.append(EmbeddingsEndpoint(api, MAX_BODY_BYTES))
    handler = Handler(
        api,
        cors=config.cors,
        max_body_bytes=MAX_BODY_BYTES,
        endpoints=endpoints,
    )
    application = Application(
        handler,
        refuse=handler.refuse,
        refusal=handler.refusal,
        admission=api.admission,
        working=config.threads,
        timeout=config.timeout_seconds,
        max_body_bytes=MAX_BODY_BYTES,
    )
    return HttpServer(listen(config.port), application)


def listen(port: int) -> socket.socket:
    """A listening socket on every interface, IPv6 included where there is one.

    Raises OSError naming the port.
    """
    try:
        if socket.has_dualstack_ipv6():
            with contextlib.suppress(OSError):
                return socket.create_server(
                    ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=512
                )
        return socket.create_server(("0.0.0.0", port), backlog=512)
    except OSError as error:
        text = f"Cannot listen on REST port {port}: {error.strerror or error}"
        raise OSError(error.errno, text) from None


class HttpServer:
    """Serves on a listening socket until `stop`; its methods are for other threads than the
    loop's."""

    def __init__(self, sock: socket.socket, application: Application) -> None:
        self.port: int = sock.getsockname()[1]
        self._application = application
        run(self._start(sock))

    async def _start(self, sock: socket.socket) -> None:
        config = uvicorn.Config(
            self._application,
            http=Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            proxy_headers=False,
            server_header=False,
            date_header=False,
            log_config=None,
            log_level="critical",
            access_log=False,
            timeout_keep_alive=int(KEEP_ALIVE_SECONDS),
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        )
        self._server = uvicorn.Server(config)
        self._serving = asyncio.ensure_future(self._server.serve(sockets=[sock]))
        while not self._server.started:
            await asyncio.sleep(0)

    def stop(self, grace: float) -> None:
        """Accept nothing new, finish what is being answered within `grace` seconds, close."""
        run(self._stop(grace))

    async def _stop(self, grace: float) -> None:
        self._application.stopping = True
        self._server.config.timeout_graceful_shutdown = grace  # type: ignore[assignment]
        self._server.should_exit = True
        await self._serving
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
