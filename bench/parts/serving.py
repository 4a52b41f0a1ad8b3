"""Throughput of the embedded server over gRPC, compared with each engine without a server.

A closed loop: each caller sends one image, waits for its vector and sends the next. One call in
flight is compared with the engine running one image after another. Higher loads are compared with
full batches from two threads. CPU times are per image.
"""

from __future__ import annotations

from pathlib import Path

from bench import models
from bench._crowd import Grpc, predict_request
from bench._published import serving
from bench._serving_load import MODEL, alone_in, jpegs, server_pid
from bench.loads import Row, cheap
from bench.results import Figure
from bench.sharing import shared
from featurewire import Client

ONE = "in process, one image after the other"
FULL = "in process, full batches"
SINGLES = 12
ENGINES = {"OpenVINO": ("float32", "bfloat16", "int8"), "TensorFlow": ("float32",)}


def measure(quick: bool) -> list[Figure]:
    levels = (1, 32) if quick else (1, 4, 8, 16, 32)
    rounds, seconds = (1, 2.0) if quick else (2, 3.0)
    figures = []
    for engine, precisions in ({"OpenVINO": ("bfloat16",)} if quick else ENGINES).items():
        for precision in precisions:
            version = models.stand_in_with(precision)
            if version is not None:
                figures += _measured(version, engine, precision, levels, rounds, seconds, quick)
    return figures


def _measured(
    version: Path,
    engine: str,
    precision: str,
    levels: tuple[int, ...],
    rounds: int,
    seconds: float,
    quick: bool,
) -> list[Figure]:
    requests = [predict_request(MODEL, image) for image in jpegs()]
    singles: list[float] = []
    full: list[float] = []
    flags = (f"--engine={engine.lower()}", f"--engine_precision={precision}")
    with (
        shared(alone_in(quick), version, engine.lower(), precision) as alone,
        shared(serving, version.parent, MODEL, *flags) as target,
    ):
        with Client(target, model=MODEL) as client:
            client.wait_until_ready(120)
        pid, loop = server_pid(target), cheap(lambda: Grpc(target, requests))
        rows = [Row(f"{level} in flight", level, loop, pid) for level in levels]
        rows[-1].warm_up()
        alone.ask("batch", 1)
        for _ in range(rounds):
            singles.append(SINGLES / sum(alone.ask("single", at) for at in range(SINGLES)))
            for row in rows:
                row.run(seconds)
            full.append(alone.rate(seconds)[1])
    table = f"{engine}, {precision}"
    alone_figures = [
        Figure(table=table, name=name, unit="images/s", values=values)
        for name, values in ((ONE, singles), (FULL, full))
    ]
    return alone_figures + [
        row.figure(table, {"of in process": ONE if row.in_flight == 1 else FULL}) for row in rows
    ]
