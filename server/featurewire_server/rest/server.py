"""HTTP/1.1 on asyncio: one thread for all sockets, a few that answer.

A connection costs a coroutine, not a thread, so slow clients hold nothing but the bytes they
have sent, and those count against the server's memory limit. `h11` parses.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ..admission import Admission
from ..errors import ServingError, unavailable
from .bodies import Bodies
from .connection import READ_BYTES, Connection, Service
from .handler import Answer, Request, failure

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 1000
#: A connection may be closed for another from here on: before, its request may be on its way.
IDLE_SECONDS = 1.0
#: So many clients at once are told that there is no room; further ones are not even told.
MAX_REFUSALS = 100
#: Threads for what needs no engine: status, metadata and the metrics page.
CONTROL_THREADS = 2


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
    """Serves `handler` on a listening socket from a thread of its own until `stop`.

    `refuse` answers, on the sockets' thread, requests (method and path) whose body is not taken.
    """

    def __init__(
        self,
        sock: socket.socket,
        handler: Callable[[Request], Answer],
        *,
        refuse: Callable[[str, str, ServingError], Answer],
        admission: Admission,
        threads: int,
        timeout: float,
        max_body_bytes: int,
    ) -> None:
        self.port: int = sock.getsockname()[1]
        self._socket = sock
        self._handler = handler
        bodies = Bodies(admission)
        self._service = Service(
            answer=self._answer,
            refuse=refuse,
            bodies=bodies,
            stopping=lambda: self._stopping,
            timeout=timeout,
            max_body_bytes=min(max_body_bytes, bodies.limit),
        )
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="rest")
        self._control = ThreadPoolExecutor(CONTROL_THREADS, thread_name_prefix="rest-control")
        self._loop = asyncio.new_event_loop()
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._refusals: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rest-sockets", daemon=True)
        self._thread.start()
        self._started.wait()

    def stop(self, grace: float) -> None:
        """Accept nothing new, finish what is being answered within `grace` seconds, close."""
        if self._thread.is_alive():
            future = asyncio.run_coroutine_threadsafe(self._stop(grace), self._loop)
            with contextlib.suppress(Exception):
                future.result(grace + 5)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
        for pool in (self._pool, self._control):
            pool.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._accept, sock=self._socket, limit=READ_BYTES)
        )
        self._loop.call_soon(self._started.set)
        self._loop.run_forever()
        self._loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = Connection(self._service, reader, writer)
        try:
            if self._stopping:
                return
            if len(self._connections) < MAX_CONNECTIONS or self._close_an_idle_one():
                self._connections[task] = connection
                await connection.serve()
            elif len(self._refusals) < MAX_REFUSALS:
                self._refusals.add(task)
                text = f"The server has {MAX_CONNECTIONS} connections and all are busy"
                await connection.refuse(failure(unavailable(text)))
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # gone, or too slow: nobody to tell
        except Exception:
            log.exception("A REST connection failed")
        finally:
            self._connections.pop(task, None)
            self._refusals.discard(task)
            writer.close()

    def _close_an_idle_one(self) -> bool:
        """Close the connection that has been without a request longest; False if none is."""
        idle = {
            task: connection.idle_since
            for task, connection in self._connections.items()
            if connection.idle_since is not None
        }
        if not idle:
            return False
        task = min(idle, key=lambda task: idle[task])
        if time.monotonic() - idle[task] < IDLE_SECONDS:
            return False
        del self._connections[task]  # now, so that the next client finds another
        task.cancel()
        return True

    async def _stop(self, grace: float) -> None:
        self._stopping = True
        self._server.close()
        for task, connection in list(self._connections.items()):
            if not connection.answering:
                task.cancel()
        if self._connections:
            await asyncio.wait(list(self._connections), timeout=grace)
        for task in [*self._connections, *self._refusals]:
            task.cancel()

    async def _answer(self, request: Request) -> Answer:
        # Probes and scrapes are answered while every thread for the others waits for a batch.
        pool = self._pool if request.method == "POST" else self._control
        return await self._loop.run_in_executor(pool, self._handler, request)
