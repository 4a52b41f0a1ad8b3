"""A closed loop against a server, and what a row of the report keeps of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench._crowd import Grpc, Http, closed_loop
from bench._serving_load import cpu_seconds
from bench.results import Figure
from bench.timing import percentiles

Caller = Callable[[], Grpc | Http]
"""Opens the connections of one loop: they belong to its event loop."""


@dataclass
class Row:
    """What one load gave, round by round."""

    name: str
    in_flight: int
    rates: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    server_cpu: list[float] = field(default_factory=list)
    client_cpu: list[float] = field(default_factory=list)

    def run(self, caller: Caller, seconds: float, pids: Callable[[], list[int]]) -> None:
        """A round. `pids`: the server's processes."""
        before, own = sum(map(cpu_seconds, pids())), time.process_time()
        rate, latencies = asyncio.run(_loop(caller, seconds, self.in_flight))
        self.rates.append(rate)
        self.latencies += latencies
        self.client_cpu.append((time.process_time() - own) / len(latencies))
        self.server_cpu.append((sum(map(cpu_seconds, pids())) - before) / len(latencies))

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


async def _loop(caller: Caller, seconds: float, callers: int) -> tuple[float, list[float]]:
    send = caller()
    try:
        return await closed_loop(send, seconds, callers)
    finally:
        await send.close()
