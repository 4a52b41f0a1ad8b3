"""Start-up time and memory of the embedded server with OpenVINO, by precision.

The server is ready when the model is AVAILABLE and warmed up; the time counts from the start of the
process. Memory is resident memory when the server is ready, after a load with 32 calls in flight,
and its maximum until then. Precisions take turns. A quick run skips this part.
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path

from bench import models
from bench._crowd import Grpc, predict_request
from bench._published import serving
from bench._serving_load import MODEL, jpegs, server_pid
from bench.loads import cheap
from bench.machine import resident
from bench.results import Figure
from featurewire import Client

ROUNDS, SECONDS, IN_FLIGHT = 3, 3.0, 32
UNITS = {"Ready": "s", "Memory once ready": "MB", "Memory after load": "MB", "Memory at most": "MB"}


def measure(quick: bool) -> list[Figure]:
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(0 if quick else ROUNDS):
        for precision in ("float32", "bfloat16", "int8"):
            version = models.stand_in_with(precision)
            if version is not None:
                flags = ("--engine=openvino", f"--engine_precision={precision}")
                values = _measured(version.parent, *flags)
                for table, value in zip(UNITS, values, strict=True):
                    found[table, precision].append(value)
    return [
        Figure(
            table=table,
            name=precision,
            unit=UNITS[table],
            values=values,
            peers={"of float32": "float32"},
        )
        for table in UNITS
        for (where, precision), values in found.items()
        if where == table
    ]


def _measured(base_path: Path, *flags: str) -> tuple[float, float, float, float]:
    """The four values that `UNITS` names, in its order."""
    requests = [predict_request(MODEL, image) for image in jpegs()]
    started = time.perf_counter()
    with serving(base_path, MODEL, *flags) as target:
        with Client(target, model=MODEL) as client:
            client.wait_until_ready(120)
        ready, pid = time.perf_counter() - started, server_pid(target)
        once_ready = resident(pid) / 1e6
        cheap(lambda: Grpc(target, requests))(SECONDS, IN_FLIGHT)
        return ready, once_ready, resident(pid) / 1e6, resident(pid, "VmHWM") / 1e6
