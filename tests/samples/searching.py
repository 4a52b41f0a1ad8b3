"""Runs the visual search like its users: as processes, with an HTTP port and folders."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.support.process import STOP_TIMEOUT, free_port, wait_for_port
from tests.support.waiting import wait_until

FOLDER = Path(__file__).resolve().parents[2] / "samples" / "visual_search"
TIMEOUT = 90.0  # seconds; usually a few


def start(*arguments: object, **options: Any) -> subprocess.Popen:
    """Start `python -m visual_search …`."""
    command = [sys.executable, "-m", "visual_search", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=FOLDER, env=os.environ | {"PYTHONUNBUFFERED": "1"}, **options
    )


def run(*arguments: object) -> tuple[int, str]:
    """Run a command; returns its exit status and output."""
    process = start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output, _ = process.communicate(timeout=TIMEOUT)
    return process.returncode, output


@contextlib.contextmanager
def page(photos: Path, index: Path, target: str, *arguments: str) -> Iterator[httpx.Client]:
    """Run the service; yields an HTTP client."""
    port = free_port()
    where = ("--photos", photos, "--index", index, "--server", target, "--port", port)
    process = start("serve", *where, *arguments)
    try:
        wait_for_port(port, process, TIMEOUT)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=TIMEOUT) as client:
            yield client
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT)


def status(client: httpx.Client) -> dict[str, Any]:
    return client.get("/api/status").raise_for_status().json()


def wait_until_indexed(client: httpx.Client, count: int) -> dict[str, Any]:
    """Wait until `count` photos have vectors and the run has ended."""

    def indexed() -> dict[str, Any] | None:
        answer = status(client)
        done = answer["index"] and answer["index"]["photos"] == count
        return answer if done and not answer["progress"]["running"] else None

    return wait_until(indexed, TIMEOUT)


def rows(index: Path) -> list[dict[str, Any]]:
    """All rows of the current table."""
    import json

    import lancedb

    name = json.loads((index / "current.json").read_text())["table"]
    return lancedb.connect(index).open_table(name).search().limit(10_000).to_list()
