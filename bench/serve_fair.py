"""Fairness between versions, signatures and classes of the embedded server.

Fairness: 24 callers keep version 1 busy. Two other callers send occasional requests, one to version
2 and one to the signature `manifest` of version 1. Their latency is compared with the time of a
full batch under the same load.

Bulk: the rate of streams alone, then together with a caller of single images that pauses for 2 s on
average between its calls.

    python -m bench.serve_fair [fairness] [bulk] [--seconds S] [--base-path DIR] [--server DIR]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import shutil
import tempfile
import threading
import time
from pathlib import Path

from bench._crowd import Grpc, Tally, one, predict_request, steady
from bench._published import published, serving
from bench._serving_load import BATCH, MODEL, jpegs, single_time, stream_rate
from bench.machine import describe, print_table
from bench.timing import quantile
from featurewire import Client

CALLERS = 24
BETWEEN = 1.5
"""Mean pause between two calls of an occasional caller, in seconds."""
THINKS = 2.0


async def fairness(target: str, contents: list[bytes], seconds: float) -> list[list[object]]:
    crowd = Grpc(target, [predict_request(MODEL, each, version=1) for each in contents])
    others = {
        "second version": predict_request(MODEL, contents[0], version=2),
        "second signature": predict_request(MODEL, b"", version=1, signature="manifest"),
    }
    await steady(crowd, 6.0, callers=CALLERS)
    rate = await steady(crowd, 15.0, callers=CALLERS)
    ends = time.perf_counter() + seconds
    tallies = {name: Tally() for name in others}

    async def ask(name: str) -> None:
        send = Grpc(target, [others[name]], connections=1)
        random_ = random.Random(name)
        while time.perf_counter() < ends:
            await one(send, 0, 30.0, tallies[name])
            await asyncio.sleep(random_.uniform(0.5, 1.5) * BETWEEN)
        await send.close()

    found, *_ = await asyncio.gather(
        steady(crowd, seconds, callers=CALLERS), *(ask(name) for name in others)
    )
    await crowd.close()
    batch = BATCH / rate
    rows: list[list[object]] = []
    for name, tally in tallies.items():
        times = tally.answered or [float("inf")]
        p50, p99 = quantile(times, 0.5), quantile(times, 0.99)
        rows.append(
            [name, len(tally.answered), tally.late + len(tally.refused), f"{p50:.2f}"]
            + [f"{p99:.2f}", f"{p99 / batch:.2f}", f"{found:.2f}"]
        )
    return rows


def bulk(target: str, contents: list[bytes], seconds: float, streams: int) -> list[object]:
    """A row of the table: this many streams, and a caller of single images."""
    with Client(target, model=MODEL) as client:
        single_time(client, contents[0])
        time.sleep(11)  # until the server expects no more interactive calls
        _, alone = stream_rate(client, contents, 20.0)
        counts: list[int] = []

        def run() -> None:
            with Client(target, model=MODEL) as own:
                counts.append(stream_rate(own, contents, seconds)[0])

        threads = [threading.Thread(target=run) for _ in range(streams)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        time.sleep(3)
        random_, times = random.Random(1), []
        for number in itertools.count():
            if time.perf_counter() - began > seconds:
                break
            times.append(single_time(client, contents[number % len(contents)]))
            time.sleep(random_.expovariate(1 / THINKS))
        for thread in threads:
            thread.join()
        together = sum(counts) / (time.perf_counter() - began)
    return [
        f"{streams} streams",
        f"{alone:.2f}",
        f"{together:.2f}",
        f"{together / alone:.2f}",
        len(times),
        f"{quantile(times, 0.5):.2f}",
        f"{quantile(times, 0.99):.2f}",
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.serve_fair", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=["fairness", "bulk", []], metavar="PART")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement")
    parser.add_argument("--base-path", type=Path, help="base path of a published version")
    parser.add_argument("--server", type=Path, help="measure the server of another tree")
    options = parser.parse_args(argv)
    if options.server:
        paths = [str(options.server.resolve() / part) for part in ("server", "client")]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    parts = options.parts or ["fairness", "bulk"]
    print(describe("tensorflow", "openvino"))
    contents = jpegs()
    with tempfile.TemporaryDirectory(prefix="featurewire-bench-") as scratch:
        base_path = (options.base_path or published(Path(scratch))).resolve()
        newest = max(base_path.iterdir(), key=lambda path: int(path.name))
        if "fairness" in parts:
            two = Path(scratch) / "two"
            for version in ("1", "2"):
                shutil.copytree(newest, two / version)
            config = Path(scratch) / "models.config"
            config.write_text(
                f'model_config_list {{ config {{ name: "{MODEL}" base_path: "{two}" '
                'model_platform: "tensorflow" model_version_policy { all {} } } }'
            )
            flags = ["--engine=openvino", f"--model_config_file={config}"]
            with serving(two, MODEL, *flags) as target:
                print_table(
                    ["under load", "answered", "failed", "p50 s", "p99 s", "p99/batch", "load/s"],
                    asyncio.run(fairness(target, contents, options.seconds)),
                )
            print("goal: p99/batch <= 2")
        if "bulk" in parts:
            with serving(base_path, MODEL, "--engine=openvino") as target:
                table = [bulk(target, contents, options.seconds, count) for count in (1, 4)]
            print_table(
                ["bulk", "alone/s", "shared/s", "ratio", "singles", "p50 s", "p99 s"], table
            )
            print("goal: ratio >= 0.8, p50 <= 1.0 s, p99 <= 2.5 s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
