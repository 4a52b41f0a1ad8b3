"""One, two and three replicas, compared with the prediction of scripts/plan.py.

Replicas are embedded servers whose network sleeps for a fixed time, so that three of them share
this machine's cores without slowing each other down. Everything else is real: processes, gRPC,
batching, the client's round robin. Single images arrive at Poisson times, and a latency counts from
the time when the image was due.

    python -m bench.scaling [--seconds S]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.machine import describe, print_table
from bench.serve_latency import open_loop
from bench.timing import quantile
from scripts.plan import Replica, quantiles, simulate
from tests.support.models import write_tiny_model
from tests.support.process import START_TIMEOUT, free_port, wait_for_port

MODEL = "inception_resnet_v2"
JPEG = b"\xff\xd8\xff an image"
REPLICA = Replica(fixed=0.06, per_image=0.01, batch=16)
BATCHING = """
max_batch_size { value: 16 }
batch_timeout_micros { value: 0 }
num_batch_threads { value: 1 }
max_enqueued_batches { value: 1000 }
"""
SHARES = (0.5, 0.8)
COUNTS = (1, 2, 3)


@contextlib.contextmanager
def replicas(count: int, folder: Path) -> Iterator[str]:
    """Run this many servers; yields their addresses as a client's target."""
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(count):
            port = free_port()
            flags = [f"--port={port}", f"--model_name={MODEL}", "--engine=tensorflow"]
            flags += [f"--model_base_path={folder / 'model'}", "--enable_batching"]
            flags += [f"--batching_parameters_file={folder / 'batching.config'}"]
            times = [str(REPLICA.fixed), str(REPLICA.per_image)]
            log = stack.enter_context((folder / f"log-{number}").open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", "bench._timed_server", *times, *flags],
                stdout=log,
                stderr=log,
            )
            stack.callback(process.wait, 60)
            stack.callback(process.terminate)
            started.append((port, process))
        for port, process in started:
            wait_for_port(port, process, START_TIMEOUT)
        yield ",".join(f"127.0.0.1:{port}" for port, _ in started)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run (default: 20)")
    options = parser.parse_args(argv)
    print(describe("tensorflow"))
    print(f"a replica: {REPLICA.capacity:.1f} images/s, batches of up to {REPLICA.batch}")
    table = []
    with tempfile.TemporaryDirectory(prefix="featurewire-bench-") as scratch:
        folder = Path(scratch)
        write_tiny_model(folder / "model", 1)
        (folder / "batching.config").write_text(BATCHING)
        for count in COUNTS:
            with replicas(count, folder) as target:
                for share in SHARES:
                    rate = share * count * REPLICA.capacity
                    found, failed = asyncio.run(
                        open_loop(target, [JPEG] * 16, rate, options.seconds)
                    )
                    table.append(row(count, share, rate, found, failed, options.seconds))
    print_table(
        ["replicas", "load", "images/s sent", "answered", "failed"]
        + [f"p{p} ms {what}" for p in (50, 99) for what in ("measured", "predicted", "simulated")],
        table,
    )
    return 0


def row(
    count: int, share: float, rate: float, found: list[float], failed: int, seconds: float
) -> list[str]:
    predicted = quantiles(REPLICA, rate / count, (0.5, 0.99))
    simulated = simulate(REPLICA, rate / count, images=100_000)
    cells = [str(count), f"{share:.0%}", f"{rate:.1f}", f"{len(found) / seconds:.1f}", str(failed)]
    for at, latency in zip((0.5, 0.99), predicted, strict=True):
        values = (quantile(found, at), latency, quantile(simulated, at))
        cells += [f"{1000 * value:.0f}" for value in values]
    return cells


if __name__ == "__main__":
    raise SystemExit(main())
