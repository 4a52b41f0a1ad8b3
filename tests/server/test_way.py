"""The picture of a request's way in the server's README is true."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from featurewire import Client
from tests.server.split_model import write_split_model
from tests.support.process import free_port

REPOSITORY = Path(__file__).parents[2]
FILE = re.compile(r"\b(?:transport|models|batching|messages|engines|common)/\w+")


def files_passed(base_path: Path, image: bytes) -> set[str]:
    """The server's files that one image passes, with batching and OpenVINO."""
    port = free_port()
    flags = [f"--port={port}", f"--model_base_path={base_path}", "--enable_batching"]
    flags += ["--engine=openvino", "--file_system_poll_wait_seconds=0"]
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.server.traced", *flags],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def tell() -> str:
        print(file=server.stdin, flush=True)
        return server.stdout.readline()

    watchdog = threading.Timer(120, server.kill)
    watchdog.start()
    try:
        assert server.stdout.readline() == "ready\n"
        with Client(f"127.0.0.1:{port}", model="default", timeout=60) as client:
            client.embed(image)  # compiles, and asks for metadata
            assert tell() == "recording\n"
            client.embed(image)
            return set(json.loads(tell()))
    finally:
        watchdog.cancel()
        server.kill()
        server.wait()
        server.stdin.close()
        server.stdout.close()


def test_the_picture_of_a_requests_way_names_the_files_that_it_passes(
    tmp_path: Path, photos: list[Path]
) -> None:
    pytest.importorskip("openvino")
    write_split_model(tmp_path)
    passed = files_passed(tmp_path, photos[0].read_bytes())
    page = (REPOSITORY / "server/README.md").read_text(encoding="utf-8")
    section = page.split("## The way of a request", 1)[1]
    picture = section.split("```")[1]
    unnamed = {file for file in passed if not re.search(rf"\b{Path(file).name}\b", section)}
    assert unnamed == set()
    assert set(FILE.findall(picture)) <= passed
