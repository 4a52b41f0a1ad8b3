"""The embedded server's throughput, against the engine without a server and against plain serving.

Each row is a server with batching on and, in a process of its own, the same artifact and engine
called directly; both stay up and are measured in turns. `plain` is what TensorFlow Serving would
run without this project: the hub module's float32 graph behind a plain decode.

    python -m bench.serve [ROW …] [--base-path DIR] [--seconds S]

The row openvino-int8 needs a version exported with --int8.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench._plain_module import plain_module
from bench._published import ROOT, published, serving
from bench._serving_load import (
    BATCH,
    MODEL,
    InProcess,
    cpu_seconds,
    jpegs,
    server_pid,
    stream_rate,
)
from bench.machine import describe, print_table
from featurewire import Client, StreamConfig

ROUNDS = 2
IN_FLIGHT = 3 * BATCH

SERVER_SHARE = 0.92
OVER_PLAIN = {"openvino-bf16": 5.5, "openvino-f32": 1.1}
OVER_FLOAT32 = {"AVX2": 1.9, "VNNI": 3.0}
"""What int8 should bring over OpenVINO's float32."""


@dataclass(frozen=True)
class Row:
    engine: str
    precision: str = ""
    plain: bool = False


ROWS = {
    "plain": Row("tensorflow", plain=True),
    "tensorflow-f32": Row("tensorflow"),
    "tensorflow-bf16": Row("tensorflow", "bfloat16"),
    "openvino-f32": Row("openvino"),
    "openvino-bf16": Row("openvino", "bfloat16"),
    "openvino-int8": Row("openvino", "int8"),
}

#: The same number of images in flight, in few requests and in many.
STREAMS = {
    "16 a request": StreamConfig(
        images_per_request=BATCH, min_in_flight=3, max_in_flight=3, initial_in_flight=3
    ),
    "1 a request": StreamConfig(
        images_per_request=1,
        min_in_flight=IN_FLIGHT,
        max_in_flight=IN_FLIGHT,
        initial_in_flight=IN_FLIGHT,
    ),
}


@dataclass
class Figures:
    """What one kind of load gave, a value a round."""

    rates: list[float] = field(default_factory=list)
    """Images a second."""
    cpu: list[float] = field(default_factory=list)
    """Processor seconds that the server, or the engine alone, took an image."""

    def add(self, name: str, pid: int, run: Callable[[], tuple[int, float]]) -> None:
        """Run and note; progress goes to standard error, because a row takes minutes."""
        before = cpu_seconds(pid)
        images, per_second = run()
        self.rates.append(per_second)
        self.cpu.append((cpu_seconds(pid) - before) / images)
        text = f"{name}: {per_second:.2f} images/s, {1000 * self.cpu[-1]:.0f} CPU ms an image"
        print(text, file=sys.stderr, flush=True)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def cpu_ms(self) -> float:
        return 1000 * statistics.median(self.cpu)


def measure(row: Row, base_path: Path, contents: list[bytes], seconds: float) -> dict[str, Figures]:
    """Figures of each kind of stream, and `in process`; the server's and its peer's in turns."""
    figures = {name: Figures() for name in (*STREAMS, "in process")}
    flags = [f"--engine={row.engine}"]
    if row.precision:
        flags.append(f"--engine_precision={row.precision}")
    version = max(base_path.iterdir(), key=lambda path: int(path.name))
    with (
        InProcess(version, row.engine, row.precision) as alone,
        serving(base_path, MODEL, *flags) as target,
    ):
        clients = {name: Client(target, model=MODEL, stream=c) for name, c in STREAMS.items()}
        for client in clients.values():
            client.wait_until_ready(120)
            stream_rate(client, contents, 2)
        alone.ask("batch", 1)
        server = server_pid(target)
        for _ in range(ROUNDS):
            for name, client in clients.items():
                figures[name].add(name, server, lambda c=client: stream_rate(c, contents, seconds))
            figures["in process"].add("in process", alone.pid, lambda: alone.rate(seconds))
        for client in clients.values():
            client.close()
    return figures


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.serve", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"among {', '.join(ROWS)}")
    parser.add_argument("--base-path", type=Path, help="a published artifact")
    parser.add_argument(
        "--seconds", type=float, default=24.0, help="of each measurement: some full batches' worth"
    )
    options = parser.parse_args(argv)
    unknown = set(options.rows) - ROWS.keys()
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))}")
    print(describe("tensorflow", "openvino"))
    contents = jpegs()
    table, best = [], {}
    with tempfile.TemporaryDirectory(prefix="featurewire-bench-") as scratch:
        base_path = (options.base_path or published(Path(scratch))).resolve()
        for name in options.rows or ROWS:
            row = ROWS[name]
            where = plain_module(ROOT / "build" / "models" / "plain") if row.plain else base_path
            figures = measure(row, where, contents, options.seconds)
            best[name] = max(figures[kind].rate for kind in STREAMS)
            alone = figures["in process"]
            table.append(
                [name, *(f"{each.rate:.2f}" for each in figures.values())]
                + [f"{figures[kind].rate / alone.rate:.3f}" for kind in STREAMS]
                + [f"{each.cpu_ms:.0f}" for each in figures.values()]
                + [
                    f"{best[name] / best[peer]:.2f}" if peer in best else ""
                    for peer in ("plain", "openvino-f32")
                ]
            )
    print_table(
        ["images/s", *STREAMS, "in process"]
        + [f"share, {kind}" for kind in STREAMS]
        + [f"CPU ms, {kind}" for kind in (*STREAMS, "in process")]
        + ["of plain", "of openvino-f32"],
        table,
    )
    print(
        f"wanted: share >= {SERVER_SHARE}; of plain, on a machine with AMX: {OVER_PLAIN}; "
        f"openvino-int8 of openvino-f32: {OVER_FLOAT32}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
