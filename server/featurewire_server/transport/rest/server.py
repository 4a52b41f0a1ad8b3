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

MAX_BODY_BYTES = 128 << 20
"""Maximum size of a body. Base64 makes images a third larger."""


@dataclass(frozen=True, kw_only=True)
class RestConfig:
    """Address, limits and protocols of the REST server."""

    port: int = 0
    """0: any free port."""
    threads: int = 1000
    """Maximum number of POST requests that are worked on; others wait."""
    timeout_seconds: float = 30.0
    """Time limit per request, from the end of its body to the answer."""
    cors: bool = False
    """Whether web pages of other origins may call the API."""
    open_inference: bool = False
    """Whether to answer the Open Inference Protocol also."""
    openai_embeddings: bool = False
    """Whether to answer OpenAI's embeddings requests also."""


def start(api: Api, config: RestConfig) -> HttpServer:
    """Serve `api`, including its metrics page if that is configured.

    Raises OSError, with the port, if the server cannot listen there.
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
    """A socket that listens on all interfaces, with IPv6 if the host supports it.

    Raises OSError, with the port, if that fails.
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
    """Serves on a listening socket until `stop`.

    Call its methods from other threads than the event loop's.
    """

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
        """Refuse new connections, give open requests up to `grace` seconds, then close."""
        run(self._stop(grace))

    async def _stop(self, grace: float) -> None:
        self._application.stopping = True
        self._server.config.timeout_graceful_shutdown = grace  # type: ignore[assignment]
        self._server.should_exit = True
        await self._serving
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
