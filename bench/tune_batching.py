"""Find good batching parameters for a server on this machine, and write the file.

Restarts the server with different parameters, and measures the throughput with many single images
in flight, then the latency of light traffic. Of each parameter it chooses the smallest value that
is nearly as good as the best, because small batches and few threads are better for latency and
memory. Takes several minutes on an idle machine.

    python -m bench.tune_batching --output serving_config/batching.config [--base-path DIR]
    python -m bench.tune_batching --output serving_config/batching.gpu.config --base-path DIR \\
        --server "docker run --rm --gpus all --network host -v /tmp:/tmp -v DIR:DIR \\
        --entrypoint tensorflow_model_server tensorflow/serving:2.19.1-gpu \\
        --mixed_precision=float16"
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench._published import published
from bench._serving_load import MODEL, jpegs
from bench.machine import describe
from bench.serve_latency import open_loop
from featurewire import AsyncClient, Client, FeaturewireError
from tests.support.process import free_port

NEAR = 0.97
"""Fraction of the best throughput that counts as nearly as good."""
LIGHT = 0.2
"""Light traffic, as a fraction of the throughput: most requests are alone."""
QUEUE_SECONDS = 5.0
"""Maximum length of the queue, as seconds of work."""
START_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The contents of a BatchingParameters file."""

    batch: int = 16
    """Rows of the largest batch that runs."""
    threads: int = 2
    timeout_micros: int = 500
    enqueued: int = 256
    largest: int = 32
    """Rows of the largest request. The warm-up records of a version must fit."""

    def text(self) -> str:
        sizes = [1 << power for power in range(self.batch.bit_length()) if 1 << power < self.batch]
        lines = [f"max_batch_size {{ value: {max(self.batch, self.largest)} }}"]
        if self.batch < self.largest:
            lines += [
                "# Larger requests run in several batches.",
                "enable_large_batch_splitting { value: true }",
                f"max_execution_batch_size {{ value: {self.batch} }}",
            ]
        lines += [
            f"batch_timeout_micros {{ value: {self.timeout_micros} }}",
            f"num_batch_threads {{ value: {self.threads} }}",
            f"max_enqueued_batches {{ value: {self.enqueued} }}",
            "# The queue's name in TensorFlow Serving's metrics.",
            f'thread_pool_name {{ value: "{MODEL}" }}',
        ]
        lines += [f"allowed_batch_sizes: {size}" for size in [*sizes, self.batch]]
        return "\n".join(lines) + "\n"


def smallest_near(found: dict[int, float], share: float = NEAR) -> int:
    """The smallest value whose rate is at least `share` of the best one's."""
    best = max(found.values())
    return min(value for value, rate in found.items() if rate >= share * best)


def largest_harmless(latencies: dict[int, float], share: float = 1.05) -> int:
    """The largest value whose latency is at most `share` of the best one's."""
    best = min(latencies.values())
    return max(value for value, latency in latencies.items() if latency <= share * best)


@contextlib.contextmanager
def server(command: list[str], base_path: Path, parameters: Parameters) -> Iterator[str]:
    """Run a server with these parameters; yields its address when it is ready."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="featurewire-tune-") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)  # a container may read it as another user
        (folder / "batching.config").write_text(parameters.text())
        flags = [f"--port={port}", f"--model_name={MODEL}", f"--model_base_path={base_path}"]
        # TensorFlow Serving refuses more than 4 calls per processor otherwise.
        flags += ["--enable_batching=true", "--grpc_max_threads=1024"]
        flags += [f"--batching_parameters_file={folder / 'batching.config'}"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, *flags], stdout=log, stderr=log, env=os.environ | QUIET
            )
        target = f"127.0.0.1:{port}"
        try:
            wait_until_ready(target, process, folder / "log")
            yield target
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2"}


def wait_until_ready(target: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    with Client(target, model=MODEL) as client:
        while True:
            with contextlib.suppress(FeaturewireError):
                client.wait_until_ready(2)
                return
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-500:]
                raise SystemExit(f"tune_batching: the server did not become ready:\n{tail}")


async def throughput(target: str, contents: list[bytes], flight: int, seconds: float) -> float:
    """Images per second with `flight` single images in flight, without the first fifth."""
    images = itertools.cycle(contents)
    started = time.perf_counter()
    begin, end = started + seconds / 5, started + seconds
    done = 0

    async def caller(client: AsyncClient) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await client.embed(next(images))
            if begin < time.perf_counter() <= end:
                done += 1

    async with AsyncClient(target, model=MODEL, timeout=120) as client:
        await asyncio.gather(*(caller(client) for _ in range(flight)))
    return done / (end - begin)


def tune(
    command: list[str], base_path: Path, sizes: Sequence[int], seconds: float, say: Callable
) -> Parameters:
    contents = jpegs()
    parameters = Parameters(largest=max(sizes))

    def rate(tried: Parameters) -> float:
        with server(command, base_path, tried) as target:
            # Enough for one full batch per thread and another in the queue.
            flight = tried.batch * (tried.threads + 1)
            return asyncio.run(throughput(target, contents, flight, seconds))

    rates = {}
    for size in sizes:
        rates[size] = rate(replace(parameters, batch=size))
        say(f"batches of {size:3d}: {rates[size]:8.1f} images/s")
    parameters = replace(parameters, batch=smallest_near(rates))
    threads = {2: rates[parameters.batch]}
    cores = len(os.sched_getaffinity(0))
    for count in sorted({1, 3, 4, cores} - {2}):
        threads[count] = rate(replace(parameters, threads=count))
        say(f"batch threads {count:3d}: {threads[count]:8.1f} images/s")
    parameters = replace(parameters, threads=smallest_near(threads))
    best = threads[parameters.threads]
    medians = {}
    for micros in (0, 500, 2000, 5000):
        with server(command, base_path, replace(parameters, timeout_micros=micros)) as target:
            found, _ = asyncio.run(open_loop(target, contents, LIGHT * best, seconds))
        medians[micros] = statistics.median(found) if found else float("inf")
        say(f"batch timeout {micros:5d} us: median {1000 * medians[micros]:7.1f} ms, light traffic")
    waiting = round(QUEUE_SECONDS * best / parameters.batch)
    return replace(
        parameters, timeout_micros=largest_harmless(medians), enqueued=min(max(waiting, 8), 1024)
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.tune_batching", description=__doc__)
    parser.add_argument("--output", type=Path, help="the file to write; without it, print only")
    parser.add_argument(
        "--base-path", type=Path, help="base path of a published version (the stand-in)"
    )
    parser.add_argument(
        "--server",
        default=f"{sys.executable} -m featurewire_server",
        help="the server's command, without flags (featurewire serve)",
    )
    parser.add_argument("--sizes", default="4,8,16,32", help="batches to try (4,8,16,32)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement (15)")
    options = parser.parse_args(argv)
    sizes = sorted(int(size) for size in options.sizes.split(","))
    machine = describe()
    print(machine, flush=True)
    with tempfile.TemporaryDirectory(prefix="featurewire-bench-") as scratch:
        base_path = (options.base_path or published(Path(scratch))).resolve()
        command = shlex.split(options.server)
        chosen = tune(command, base_path, sizes, options.seconds, lambda t: print(t, flush=True))
    text = f"# Measured by python -m bench.tune_batching on: {machine}\n{chosen.text()}"
    print(f"\n{text}", end="")
    if options.output:
        options.output.write_text(text)
        print(f"\nwritten to {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
