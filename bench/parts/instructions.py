"""The embedded server over gRPC by precision, on this CPU and on simulated older ones.

For an older CPU, some instruction sets are hidden from OpenVINO (`bench/lesser.py`). `kernel` is
its choice for a convolution. The servers of one CPU take turns. A CPU without VNNI runs the 8-bit
network that was made for any CPU. A quick run skips this part.
"""

from __future__ import annotations

import contextlib
from functools import partial

from bench import lesser, models
from bench._crowd import Grpc, predict_request
from bench._published import serving
from bench._serving_load import MODEL, jpegs, server_pid
from bench.loads import Row, cheap
from bench.results import Figure
from featurewire import Client

LEVELS = (1, 32)
ROUNDS, SECONDS = 3, 5.0


def measure(quick: bool) -> list[Figure]:
    return [] if quick else [each for found in map(_measured, lesser.here()) for each in found]


def _measured(processor: lesser.Processor) -> list[Figure]:
    requests = [predict_request(MODEL, image) for image in jpegs()]
    kernels = processor.kernels()
    with contextlib.ExitStack() as stack, processor.seen():
        rows = []
        for precision in processor.precisions:
            lesser_int8 = precision == "int8" and not processor.vnni
            version = models.stand_in_for_any() if lesser_int8 else models.stand_in_with(precision)
            if version is None:
                continue
            flags = ("--engine=openvino", f"--engine_precision={precision}")
            target = stack.enter_context(serving(version.parent, MODEL, *flags))
            with Client(target, model=MODEL) as client:
                client.wait_until_ready(120)
            pid, loop = server_pid(target), cheap(partial(Grpc, target, requests))
            rows += [(precision, Row(f"{precision}, {n}", n, loop, pid)) for n in LEVELS]
        for _, row in rows:
            row.warm_up()
        for _ in range(ROUNDS):
            for _, row in sorted(rows, key=lambda each: each[1].in_flight):
                row.run(SECONDS)
    return [
        row.figure(
            processor.name,
            {f"of {peer}": f"{peer}, {row.in_flight}" for peer in processor.precisions[:-1]},
            kernel=kernels[precision],
        )
        for precision, row in rows
    ]
