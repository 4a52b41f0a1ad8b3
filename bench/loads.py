"""Closed loops of callers, and their results as a row of the report."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from dataclasses import dataclass, field

from bench._crowd import Grpc, Http, closed_loop
from bench._serving_load import stream_rate
from bench.machine import tree_cpu_seconds
from bench.results import Figure
from bench.timing import percentiles
from featurewire import Client

Loop = Callable[[float, int], tuple[int, list[float]]]
"""Runs for some seconds with a number of callers. Returns the number of answered images and their
latencies in seconds; a stream has none."""


def cheap(connect: Callable[[], Grpc | Http]) -> Loop:
    """Callers in one event loop, with prepared requests and without parsing replies."""

    async def loop(seconds: float, callers: int) -> tuple[int, list[float]]:
        send = connect()
        try:
            latencies = await closed_loop(send, seconds, callers)
        finally:
            await send.close()
        return len(latencies), latencies

    return lambda seconds, callers: asyncio.run(loop(seconds, callers))


def threads(call: Callable[[int], object]) -> Loop:
    """One thread per caller; `call` takes the number of an image and returns its vector."""

    def run(seconds: float, callers: int) -> tuple[int, list[float]]:
        numbers, latencies = itertools.count(), []
        began = time.perf_counter()

        def caller() -> None:
            while (started := time.perf_counter()) - began < seconds:
                call(next(numbers))
                latencies.append(time.perf_counter() - started)

        with futures.ThreadPoolExecutor(callers) as pool:
            for done in [pool.submit(caller) for _ in range(callers)]:
                done.result()
        return len(latencies), latencies

    return run


def streaming(client: Client, contents: list[bytes]) -> Loop:
    """One stream with its defaults, whatever the number of callers."""

    def run(seconds: float, _callers: int) -> tuple[int, list[float]]:
        return stream_rate(client, contents, seconds)[0], []

    return run


@dataclass
class Row:
    """One load and its results, by round."""

    name: str
    in_flight: int
    loop: Loop
    pid: int
    """Process id of the server. CPU time includes its children."""
    rates: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    server_cpu: list[float] = field(default_factory=list)
    client_cpu: list[float] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        before, own = tree_cpu_seconds(self.pid), time.process_time()
        began = time.perf_counter()
        images, latencies = self.loop(seconds, self.in_flight)
        self.rates.append(images / (time.perf_counter() - began))
        self.latencies += latencies
        self.client_cpu.append((time.process_time() - own) / images)
        self.server_cpu.append((tree_cpu_seconds(self.pid) - before) / images)

    def warm_up(self, seconds: float = 1.0) -> None:
        self.loop(seconds, self.in_flight)

    def figure(self, table: str, peers: Mapping[str, str], **more: float | str) -> Figure:
        return Figure(
            table=table,
            name=self.name,
            unit="images/s",
            values=self.rates,
            peers=peers,
            more={
                "in flight": self.in_flight,
                **percentiles(self.latencies),
                "server CPU ms": 1000 * sum(self.server_cpu) / len(self.server_cpu),
                "client CPU ms": 1000 * sum(self.client_cpu) / len(self.client_cpu),
                **more,
            },
        )
