"""A loopback HTTP server that imitates the hub, with and without faults."""

from __future__ import annotations

import io
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit


def archive_of(directory: Path, *, mode: Literal["w:gz", "w"] = "w:gz") -> bytes:
    """A module packed like the hub's archives: members relative to `./`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        archive.add(directory, arcname="./")
    return buffer.getvalue()


def archive_with(member: str, content: bytes = b"x", **fields) -> bytes:
    """An archive with one member of any name and type."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo(member)
        info.size = len(content)
        for key, value in fields.items():
            setattr(info, key, value)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


class Hub:
    """The state of the server: answers by path, and received requests."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.archives: dict[str, bytes] = {}
        self.aliases: dict[str, str] = {}
        """Paths with the same answer as another path."""
        self.requests: list[str] = []
        self.release = threading.Event()

    def serve(self, path: str, archive: bytes) -> str:
        """Answer `path` with `archive`; returns the handle."""
        self.archives[path] = archive
        return f"{self.url}{path}"


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Paths below `/moved` redirect, and `/slow` sends slowly. `/broken` closes half-way with a
    length, `/chunked` half-way without one. `/silent` sends only headers, and `/held` then waits
    for `release`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            hub.requests.append(self.path)
            if url.path.startswith("/moved/"):
                self.send_response(302)
                self.send_header("Location", f"/{url.path[7:]}?{url.query}")
                self.end_headers()
                return
            path = hub.aliases.get(url.path, url.path)
            kind = path.split("/")[1]
            body = hub.archives.get(path)
            if body is None or parse_qs(url.query).get("tf-hub-format") != ["compressed"]:
                self.send_error(404)
                return
            self.send_response(200)
            if kind != "chunked":
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if kind == "slow":
                for i in range(0, len(body), len(body) // 8 + 1):
                    self.wfile.write(body[i : i + len(body) // 8 + 1])
                    self.wfile.flush()
                    time.sleep(0.05)
            elif kind in ("broken", "chunked"):
                self.wfile.write(body[: len(body) // 2])
            elif kind == "silent":
                closing.wait(30)
            elif kind == "held":
                hub.release.wait(60)
                with suppress(ConnectionError):
                    self.wfile.write(body)
            else:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    closing = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        closing.set()
        hub.release.set()
        server.shutdown()
        thread.join()
        server.server_close()
