"""What a caller notices of a version that loads beside the one that answers, and what stays of it.

One client sends a photo each 0.15 s, one at a time. After a steady while a second version is
published, loads, is warmed and takes over; with `--swaps` further ones follow. Resident memory and
descriptors are those before the first swap, and after the last with its old version unloaded.

    python -m bench.load_beside [ENGINE …] [--seconds S] [--swaps N] [--base-path DIR]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from bench._published import published, serving
from bench._serving_load import MODEL, jpegs, server_pid
from bench.machine import describe, print_table, resident
from bench.timing import quantile
from featurewire import Client

EVERY = 0.15
LOAD_SECONDS = 180.0
WORST = 1.0
RATIO = 2.0
GROWTH = 0.05


def publish(source: Path, base_path: Path, version: int) -> None:
    """The version directory `source` as `version`; its files are shared, not copied."""
    making = base_path / f"{version}.making"
    for file in source.rglob("*"):
        target = making / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.is_file():
            target.symlink_to(file)
    making.rename(base_path / str(version))


class Caller:
    """One photo each EVERY seconds, one at a time; notes seconds and versions."""

    def __init__(self, client: Client, images: list[bytes]) -> None:
        self._client = client
        self._images = images
        self._count = 0

    def call(self) -> tuple[float, int]:
        began = time.perf_counter()
        embedding = self._client.embed(self._images[self._count % len(self._images)])
        seconds = time.perf_counter() - began
        self._count += 1
        time.sleep(max(EVERY - seconds, 0))
        return seconds, embedding.version

    def steady(self, seconds: float) -> list[float]:
        until = time.perf_counter() + seconds
        times = []
        while time.perf_counter() < until:
            times.append(self.call()[0])
        return times

    def until_version(self, version: int) -> list[float]:
        until = time.perf_counter() + LOAD_SECONDS
        times = []
        while time.perf_counter() < until:
            seconds, answered = self.call()
            times.append(seconds)
            if answered == version:
                return times
        raise RuntimeError(f"version {version} did not load within {LOAD_SECONDS:.0f} s")


def settled(client: Client, version: int) -> None:
    """Wait until `version` is the only one that is loaded."""
    until = time.monotonic() + LOAD_SECONDS
    while time.monotonic() < until:
        live = [v.version for v in client.status().versions if v.state not in ("END",)]
        if live == [version]:
            time.sleep(2)  # memory is given back after the state has changed
            return
        time.sleep(0.2)
    raise RuntimeError("the old version was not unloaded")


def measure(engine: str, source: Path, seconds: float, swaps: int) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="featurewire-bench-") as scratch:
        base_path = Path(scratch, MODEL)
        base_path.mkdir()
        publish(source, base_path, 1)
        with serving(base_path, MODEL, f"--engine={engine}") as target:
            pid = server_pid(target)
            with Client(target, model=MODEL, timeout=60) as client:
                client.wait_until_ready(120)
                caller = Caller(client, jpegs())
                caller.steady(3)
                steady = caller.steady(seconds)
                before = resident(pid), len(os.listdir(f"/proc/{pid}/fd"))
                loading: list[float] = []
                began = time.perf_counter()
                for version in range(2, 2 + swaps):
                    publish(source, base_path, version)
                    loading += caller.until_version(version)
                    if version == 2:
                        took = time.perf_counter() - began
                    settled(client, version)
                    now = resident(pid), len(os.listdir(f"/proc/{pid}/fd"))
                    print(f"{engine} swap {version - 1}: {now[0] / 1e6:.0f} MB, {now[1]} files")
                caller.steady(2)
                now = resident(pid), len(os.listdir(f"/proc/{pid}/fd"))
    row = [engine]
    for times in (steady, loading):
        row += [f"{x:.3f}" for x in (statistics.median(times), quantile(times, 0.99), max(times))]
    ratio = quantile(loading, 0.99) / quantile(steady, 0.99)
    return [
        *row,
        f"{ratio:.2f}",
        f"{took:.1f}",
        f"{before[0] / 1e6:.0f}",
        f"{now[0] / before[0] - 1:+.1%}",
        f"{now[1] - before[1]:+d}",
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.load_beside", description=__doc__)
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help="openvino, tensorflow or both")
    parser.add_argument("--base-path", type=Path, help="a published artifact")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the steady while")
    parser.add_argument("--swaps", type=int, default=1)
    options = parser.parse_args(argv)
    print(describe("tensorflow", "openvino"))
    with tempfile.TemporaryDirectory(prefix="featurewire-bench-") as scratch:
        base_path = (options.base_path or published(Path(scratch))).resolve()
        source = max(base_path.iterdir(), key=lambda path: int(path.name))
        engines = options.engines or ["openvino", "tensorflow"]
        rows = [measure(engine, source, options.seconds, options.swaps) for engine in engines]
    print_table(
        ["engine", "steady median", "p99", "max", "loading median", "p99", "max", "p99 ratio"]
        + ["s to load", "MB", "growth", "files"],
        rows,
    )
    print(
        f"wanted: p99 ratio <= {RATIO:.0f}; no request beyond {WORST:.0f} s; "
        f"growth <= {GROWTH:.0%} after 20 swaps"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
