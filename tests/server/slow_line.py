"""A connection between a client and a server that a test can stall."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class SlowLine:
    """Forwards one connection to `port`; the server's data wait while `open` is clear."""

    def __init__(self, port: int) -> None:
        self.open = threading.Event()
        self.open.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._port = port
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            client, _ = self._listener.accept()
            server = socket.create_connection(("127.0.0.1", self._port))
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
            self._forward(server, client, self.open)

    def _forward(
        self, source: socket.socket, sink: socket.socket, gate: threading.Event | None = None
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if gate is not None:
                    gate.wait()
                sink.sendall(data)
        # Close only one direction, because the other may still have data.
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.open.set()
        self._listener.close()


@contextlib.contextmanager
def slow_line(port: int) -> Iterator[SlowLine]:
    line = SlowLine(port)
    try:
        yield line
    finally:
        line.close()
