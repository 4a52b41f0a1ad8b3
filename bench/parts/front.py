"""Cost of the server's front per call: an engine that answers at once, and bare `grpc.aio`.

A closed loop of callers with one image each. The handler of the bare server returns fixed bytes, so
it does not parse, check, admit or schedule anything. The number of waiting calls is the maximum
that the server accepts from one host.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench._crowd import Grpc, predict_request
from bench._front_server import MODEL
from bench.loads import Row, cheap
from bench.results import Figure
from bench.timing import percentiles

FRONTS = {"featurewire": "Featurewire", "bare": "bare grpc.aio"}
SIZES = {1_000: "1 KB", 100_000: "100 KB", 1_600_000: "1.6 MB"}
IDLE = 1000
WAITING = 512
SETTLE = 1.5  # seconds


@dataclass
class Front:
    process: subprocess.Popen[str]
    port: int

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def state(self, key: str) -> float:
        """A value from /proc/PID/status, such as `VmRSS` (KiB) or `Threads`."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(key)))


@contextlib.contextmanager
def front(kind: str) -> Iterator[Front]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench._front_server", kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield Front(process, int(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate()


def measure(quick: bool) -> list[Figure]:
    rounds, seconds = (1, 0.5) if quick else (3, 3.0)
    figures = []
    with front("featurewire") as ours, front("bare") as bare:
        for size, title in SIZES.items():
            for in_flight in (1, 16):
                table = f"{title} per call, {in_flight} in flight"
                rows = [
                    _row(each, kind, size, in_flight)
                    for kind, each in (("featurewire", ours), ("bare", bare))
                ]
                for row in rows:
                    row.warm_up(seconds / 2)
                for _ in range(rounds):
                    for row in rows:
                        row.run(seconds)
                figures += [_processor(table, row) for row in rows]
    with front("featurewire") as ours:
        figures += _memory(ours)
    return figures


def _row(server: Front, kind: str, size: int, in_flight: int) -> Row:
    requests = [predict_request(MODEL, os.urandom(size))]
    loop = cheap(lambda: Grpc(server.target, requests, connections=2))
    return Row(FRONTS[kind], in_flight, loop, server.process.pid)


def _processor(table: str, row: Row) -> Figure:
    return Figure(
        table=table,
        name=row.name,
        unit="us of CPU",
        values=[1e6 * each for each in row.server_cpu],
        peers={"of bare grpc.aio": FRONTS["bare"]},
        more={
            "calls/s": sum(row.rates) / len(row.rates),
            "p50 ms": percentiles(row.latencies)["p50 ms"],
        },
    )


def _memory(server: Front) -> list[Figure]:
    """Server memory for connections without calls, and for calls that wait for an answer."""
    before = server.state("VmRSS")
    with contextlib.ExitStack() as stack:
        for _ in range(IDLE):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            # HTTP/2's preface and an empty SETTINGS frame (RFC 9113, 3.4 and 6.5).
            sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        time.sleep(SETTLE)
        figures = [_grown(server, f"{IDLE} idle connections", before)]
    time.sleep(SETTLE)
    before = server.state("VmRSS")
    assert server.process.stdin is not None
    assert server.process.stdout is not None
    print(file=server.process.stdin, flush=True)
    server.process.stdout.readline()
    asyncio.run(_wait(server, figures, before))
    return figures


async def _wait(server: Front, figures: list[Figure], before: float) -> None:
    send = Grpc(server.target, [predict_request(MODEL, os.urandom(1000))])
    calls = [asyncio.ensure_future(send(number, None)) for number in range(WAITING)]
    await asyncio.sleep(SETTLE)
    figures.append(_grown(server, f"{WAITING} waiting calls", before))
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await send.close()


def _grown(server: Front, name: str, before: float) -> Figure:
    grown = (server.state("VmRSS") - before) / 1024
    threads = server.state("Threads")
    return Figure(
        table="Memory", name=name, unit="MiB more", values=[grown], more={"threads": threads}
    )
