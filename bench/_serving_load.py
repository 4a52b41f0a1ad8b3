"""Helpers of the server's benchmarks: images, rates, and the engine without a server."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent import futures
from pathlib import Path
from typing import Any

from bench._published import ROOT
from featurewire import Client

MODEL = "inception_resnet_v2"
BATCH = 16
SIDE = 640


def jpegs(side: int = SIDE) -> list[bytes]:
    """The sample photos as JPEGs whose longer side is `side` pixels."""
    from PIL import Image

    contents = []
    for path in sorted((ROOT / "samples" / "photos").glob("*.jpg")):
        photo = Image.open(path).convert("RGB")
        scale = side / max(photo.size)
        buffer = io.BytesIO()
        photo.resize([round(length * scale) for length in photo.size]).save(buffer, "JPEG")
        contents.append(buffer.getvalue())
    return contents


def server_pid(target: str) -> int:
    """Process id of the child that serves `target`."""
    return _server(target)[0]


def rest_port(target: str) -> int:
    """The REST port of the server at `target`."""
    (found,) = re.findall(r"--rest_api_port=(\d+)", _server(target)[1])
    return int(found)


def _server(target: str) -> tuple[int, str]:
    """Process id and command line of the child that serves `target`."""
    port = target.rsplit(":", 1)[1]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            command = (entry / "cmdline").read_text()
            if parent == os.getpid() and f"--port={port}" in command:
                return int(entry.name), command
    raise RuntimeError(f"no child process serves {target}")


def stream_rate(client: Client, contents: Iterable[bytes], seconds: float) -> tuple[int, float]:
    """Number of images and images per second of one stream with input for `seconds`.

    The time counts until the last result. Raises the first image's error.
    """
    started = time.perf_counter()
    deadline = started + seconds
    endless = itertools.cycle(contents)
    images = itertools.takewhile(lambda _: time.perf_counter() < deadline, endless)
    count = 0
    for result in client.stream(images):
        if result.error is not None:
            raise result.error
        count += 1
    return count, count / (time.perf_counter() - started)


def single_time(client: Client, image: bytes) -> float:
    """Latency of one image in seconds."""
    started = time.perf_counter()
    client.embed(image)
    return time.perf_counter() - started


class Alone:
    """The engine without a server, in this process."""

    def __init__(self, version: Path, name: str, precision: str) -> None:
        from bench.engines import load

        self._engine = load(version, name, precision)
        self._contents = jpegs()
        self._images = 0
        self._run(BATCH)
        self._run(1)

    def rate(self, seconds: float) -> tuple[int, float]:
        """Images, and images a second, of full batches from two threads for `seconds`."""
        per_second = self.ask("rate", seconds)
        return self._images, per_second

    def ask(self, what: str, amount: float) -> float:
        """`single NUMBER`: seconds of that image alone; `batch COUNT`: median of a full batch."""
        if what == "rate":
            started = time.perf_counter()
            # Two threads, as in the server: one decodes while the other computes.
            with futures.ThreadPoolExecutor(2) as pool:
                batches = pool.map(self._batches_until, [started + amount] * 2)
            self._images = BATCH * sum(batches)
            return self._images / (time.perf_counter() - started)
        if what == "count":
            return self._images
        if what == "single":
            return self._run(1, int(amount))
        return statistics.median(self._run(BATCH) for _ in range(int(amount)))

    def _batches_until(self, deadline: float) -> int:
        count = 0
        while time.perf_counter() < deadline:
            self._run(BATCH)
            count += 1
        return count

    def _run(self, count: int, first: int = 0) -> float:
        import numpy as np

        images = np.empty(count, object)
        endless = itertools.cycle(self._contents)
        images[:] = list(itertools.islice(endless, first, first + count))
        started = time.perf_counter()
        self._engine.run("serving_default", {"image_bytes": images}, ["features"])
        return time.perf_counter() - started


class InProcess:
    """The engine without a server, in a separate process that is controlled over pipes."""

    def __init__(self, version: Path, engine: str, precision: str) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "bench._serving_load", str(version), engine, precision],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"},
        )

    @property
    def pid(self) -> int:
        return self._child.pid

    def rate(self, seconds: float) -> tuple[int, float]:
        """Images, and images a second, of full batches from two threads for `seconds`."""
        per_second = self.ask("rate", seconds)
        return int(self.ask("count", 0)), per_second

    def ask(self, what: str, amount: float) -> float:
        """`single NUMBER`: seconds of that image alone; `batch COUNT`: median of a full batch."""
        assert self._child.stdin
        assert self._child.stdout
        self._child.stdin.write(f"{what} {amount}\n")
        self._child.stdin.flush()
        answer = self._child.stdout.readline()
        if not answer:
            raise RuntimeError(f"the engine's process ended with status {self._child.wait()}")
        return float(answer)

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._child.stdin is not None
        with contextlib.suppress(OSError):
            self._child.stdin.close()
        self._child.wait(30)


def alone_in(quick: bool) -> Callable[..., contextlib.AbstractContextManager[Alone | InProcess]]:
    """`Alone` in a quick run, whose process has the engine already, else `InProcess`."""
    return _alone if quick else InProcess


def _alone(*engine: Any) -> contextlib.AbstractContextManager[Alone]:
    return contextlib.nullcontext(Alone(*engine))


if __name__ == "__main__":
    alone = Alone(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
    for line in sys.stdin:
        what, amount = line.split()
        print(alone.ask(what, float(amount)), flush=True)
