"""Waits for a peer's server, which listens before it can answer."""

from __future__ import annotations

import time
import urllib.error
import urllib.request

START_SECONDS = 60.0


def first_answer(port: int, path: str, body: bytes, kind: str) -> bytes:
    """The first successful reply to a POST. Raises the last error after `START_SECONDS`."""
    headers = {"Content-Type": kind}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers)
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(request, timeout=START_SECONDS) as reply:
                content: bytes = reply.read()
                return content
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
