"""Latency of the embedded server: one image at a time, and in an open loop.

One at a time: the median over gRPC, compared with the engine without a server, in turns. Open loop:
single images arrive at Poisson times, at 30 % and 70 % of the throughput measured first. A latency
counts from the time when the image was due, so it includes waiting for a slow server.

    python -m bench.serve_latency [--engine E] [--mixed_precision P] [--base-path DIR]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import statistics
import tempfile
import time
from pathlib import Path

from bench._published import published, serving
from bench._serving_load import BATCH, MODEL, InProcess, jpegs, single_time, stream_rate
from bench.machine import describe, print_table
from bench.timing import quantile
from featurewire import AsyncClient, Client, FeaturewireError, RetryConfig

SINGLES = 48
RATE_SECONDS = 15.0
OPEN_SECONDS = 45.0

SINGLE_OVERHEAD = 0.003  # seconds
P99_BATCHES = 3.0
P50_IMAGES = 2.0


async def open_loop(
    target: str, contents: list[bytes], per_second: float, seconds: float
) -> tuple[list[float], int]:
    """Latencies in seconds from each image's due time, and the number of failed requests."""
    random_ = random.Random(1)
    latencies: list[float] = []
    failures = 0

    async def one(client: AsyncClient, image: bytes, due: float) -> None:
        nonlocal failures
        try:
            await client.embed(image)
            latencies.append(time.perf_counter() - due)
        except FeaturewireError:
            failures += 1

    # Do not retry, so that rejections are counted.
    retry = RetryConfig(max_attempts=1)
    async with AsyncClient(target, model=MODEL, timeout=60, retry=retry) as client:
        await client.embed(contents[0])
        due = time.perf_counter()
        end = due + seconds
        tasks = []
        for image in itertools.cycle(contents):
            due += random_.expovariate(per_second)
            if due >= end:
                break
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            tasks.append(asyncio.create_task(one(client, image, due)))
        await asyncio.gather(*tasks)
    return latencies, failures


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.serve_latency", description=__doc__)
    parser.add_argument("--engine", default="openvino", help="openvino or tensorflow")
    parser.add_argument("--mixed_precision", default="bfloat16", help="bfloat16, or empty")
    parser.add_argument("--base-path", type=Path, help="base path of a published version")
    options = parser.parse_args(argv)
    print(describe("tensorflow", "openvino"))
    contents = jpegs()
    with tempfile.TemporaryDirectory(prefix="featurewire-bench-") as scratch:
        base_path = (options.base_path or published(Path(scratch))).resolve()
        version = max(base_path.iterdir(), key=lambda path: int(path.name))
        flags = [f"--engine={options.engine}"]
        if options.mixed_precision:
            flags.append(f"--mixed_precision={options.mixed_precision}")
        with serving(base_path, MODEL, *flags) as target, Client(target, model=MODEL) as client:
            with InProcess(version, options.engine, options.mixed_precision) as engine:
                client.wait_until_ready(120)
                image, batch = one_at_a_time(client, engine, contents)
            _, capacity = stream_rate(client, contents, RATE_SECONDS)
            print(
                f"{options.engine} {options.mixed_precision or 'float32'}: {capacity:.1f} images/s",
                flush=True,
            )
            failed = 0
            for share in (0.3, 0.7):
                run = open_loop(target, contents, share * capacity, OPEN_SECONDS)
                latencies, failures = asyncio.run(run)
                failed += failures
                report(share, latencies, failures, image, batch)
    print(
        f"goal: difference <= {1000 * SINGLE_OVERHEAD:.0f} ms; no failures; "
        f"at 30 % p50/image <= {P50_IMAGES:.0f}; at 70 % p99/batch <= {P99_BATCHES:.0f}"
    )
    return 1 if failed else 0


def one_at_a_time(client: Client, engine: InProcess, contents: list[bytes]) -> tuple[float, float]:
    """Print the comparison; returns median seconds of one image and of a full batch in process.

    Server and engine take turns with each image, and the median difference counts, because the
    machine's speed drifts by more than the server's overhead.
    """
    for at in range(3):
        single_time(client, contents[at])
    pairs = [
        (single_time(client, contents[at % len(contents)]), engine.ask("single", at))
        for at in range(SINGLES)
    ]
    single, image = (statistics.median(times) for times in zip(*pairs, strict=True))
    difference = statistics.median(over - alone for over, alone in pairs)
    batch = engine.ask("batch", 3)
    ms = [f"{1000 * value:.1f}" for value in (single, image, difference, batch)]
    print_table(
        ["ms", "one image over gRPC", "in process", "difference", f"batch of {BATCH} in process"],
        [["median", *ms]],
    )
    return image, batch


def report(share: float, latencies: list[float], failures: int, image: float, batch: float) -> None:
    p50, p99 = quantile(latencies, 0.5), quantile(latencies, 0.99)
    times = [f"{1000 * p50:.0f}", f"{1000 * p99:.0f}"]
    print_table(
        ["open loop", "answered", "failed", "p50 ms", "p99 ms", "p50/image", "p99/batch"],
        [
            [f"{share:.0%} load", len(latencies), failures, *times]
            + [f"{p50 / image:.2f}", f"{p99 / batch:.2f}"]
        ],
    )


if __name__ == "__main__":
    raise SystemExit(main())
