"""The embedded server over time: how soon it is ready, and whether its memory grows.

Ready is the first GetModelStatus that says AVAILABLE, warmed, counted from the start of the
process. Memory is resident, under a constant load of images in many small requests; the trend is
a line through the samples after the first third, carried on to an hour.

    python -m bench.serve_start [--engine E] [--mixed_precision P] [--seconds S] [--base-path DIR]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path

from bench._published import published, serving
from bench._serving_load import MODEL, jpegs, server_pid, stream_rate
from bench.machine import describe, print_table, resident
from featurewire import Client, StreamConfig

SECONDS = 120.0
SAMPLE_SECONDS = 1.0
READY_SECONDS = 25.0
GROWTH = 0.05
HOUR = 3600.0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.serve_start", description=__doc__)
    parser.add_argument("--engine", default="openvino", help="openvino or tensorflow")
    parser.add_argument("--mixed_precision", default="bfloat16", help="bfloat16, or empty")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of load")
    parser.add_argument("--base-path", type=Path, help="a published artifact")
    options = parser.parse_args(argv)
    print(describe("tensorflow", "openvino"))
    contents = jpegs()
    flags = [f"--engine={options.engine}"]
    if options.mixed_precision:
        flags.append(f"--mixed_precision={options.mixed_precision}")
    stream = StreamConfig(images_per_request=1, min_in_flight=32, max_in_flight=32)
    samples: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="featurewire-bench-") as scratch:
        base_path = (options.base_path or published(Path(scratch))).resolve()
        started = time.perf_counter()
        with serving(base_path, MODEL, *flags) as target:
            pid = server_pid(target)
            done = threading.Event()
            with Client(target, model=MODEL, stream=stream) as client:
                client.wait_until_ready(120)
                ready = time.perf_counter() - started

                def sample() -> None:
                    while not done.wait(SAMPLE_SECONDS):
                        samples.append((time.perf_counter() - started - ready, resident(pid)))

                sampler = threading.Thread(target=sample)
                sampler.start()
                _, rate = stream_rate(client, contents, options.seconds)
                done.set()
                sampler.join()
    settled = samples[len(samples) // 3 :]
    slope, level = statistics.linear_regression(*zip(*settled, strict=True))
    growth = slope * (HOUR - 60) / (level + slope * 60)
    print_table(
        ["seconds to ready", "images/s", "MB at the start", "MB at the end", "MB/hour", "growth"],
        [
            [f"{ready:.1f}", f"{rate:.1f}"]
            + [f"{value / 1e6:.0f}" for value in (settled[0][1], settled[-1][1], slope * HOUR)]
            + [f"{growth:+.1%}"]
        ],
    )
    print(f"wanted: ready <= {READY_SECONDS:.0f} s; growth from minute 1 to hour 1 <= {GROWTH:.0%}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
