"""The page docs/performance.md: answers for buyers on two screens, all from the result file."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from bench.report import number

Part = Mapping[str, Any]
Figure = Mapping[str, Any]

BUSY = 32
"""Calls in flight that keep two cores busy all the time."""

HEAD = """<!-- `python -m bench --report` writes this from bench/results/latest.json. -->
# Performance

For buyers of hardware. After this page you know how many images per second a CPU computes in each
precision, the cost of a million images, and how other servers compare.

The network is Inception ResNet V2 (26 GFLOP per image). The images are JPEG photos 640 pixels wide,
sent over gRPC to the embedded server on two vCPUs. [measurements.md](measurements.md) has every
figure with its spread, its machine and its limit, and [bench/](../bench/README.md) says how to
measure your own machine. [scaling.md](scaling.md) turns a rate and a latency into a number of
replicas.
"""

COST = """## Throughput and cost by processor

`images/s` and vCPU-hours are measured with 32 calls in flight. The latency is the median with one
call at a time. All Intel rows come from one CPU with AMX; the rows for older CPUs hide some of its
instruction sets. Its bfloat16 without AMX does not predict AMD's, which is in the last rows.
"""

COST_END = """Multiply the vCPU-hours by the price of a vCPU-hour to get the price of a million
images. Choose int8 if its accuracy is sufficient, or bfloat16 on Intel CPUs with AMX and on AMD
CPUs with AVX512_BF16. On other CPUs bfloat16 gains nothing.
"""

PEERS = """## Compared with other servers

All servers run the same network in float32 with the same photos on two cores. Plain TensorFlow
computes full batches in its own process, without a server.
"""

ACCURACY = """## Accuracy by precision

EfficientNet-Lite0 with learned weights, compared with the module's own vectors. `recall lost` is
the loss of recall@1 in percentage points, with a 95 % interval.
"""


def page(parts: Mapping[str, Part]) -> str:
    """The page as Markdown, with the sections whose parts were measured."""
    sections = [HEAD]
    if "instructions" in parts and "serving" in parts:
        rows = [*_cost_by_processor(parts["instructions"]), *_cost_here(parts["serving"])]
        sections += [COST, _table(COST_COLUMNS, rows), COST_END]
        sections.append(_machines(parts["instructions"], parts["serving"]))
    if "peers" in parts:
        sections += [PEERS, _table(PEER_COLUMNS, _peers(parts["peers"]))]
        sections.append(_machines(parts["peers"]))
    if "accuracy" in parts:
        sections += [ACCURACY, _table(ACCURACY_COLUMNS, _accuracy(parts["accuracy"]))]
        sections.append(_machines(parts["accuracy"]))
    return "\n".join(sections)


COST_COLUMNS = ("processor", "precision", "images/s", "vCPU-hours per million images", "latency")
PEER_COLUMNS = ("server", "calls in flight", "images/s", "of plain TensorFlow", "p99")
ACCURACY_COLUMNS = ("engine", "cosine, median", "overlap@10", "recall lost")


def _cost_by_processor(part: Part) -> Iterable[tuple[str, ...]]:
    figures = {(figure["table"], figure["name"]): figure for figure in part["figures"]}
    for (processor, name), figure in figures.items():
        precision, _, in_flight = name.partition(", ")
        if in_flight == str(BUSY):
            alone = figures[processor, f"{precision}, 1"]
            yield _cost(part, f"Intel, {processor}", precision, figure, alone)


def _cost_here(part: Part) -> Iterable[tuple[str, ...]]:
    figures = {(figure["table"], figure["name"]): figure for figure in part["figures"]}
    for table in dict.fromkeys(figure["table"] for figure in part["figures"]):
        engine, _, precision = table.partition(", ")
        if engine == "OpenVINO":
            busy, alone = figures[table, f"{BUSY} in flight"], figures[table, "1 in flight"]
            yield _cost(part, part["machine"]["processor"], precision, busy, alone)


def _cost(
    part: Part, processor: str, precision: str, busy: Figure, alone: Figure
) -> tuple[str, ...]:
    hours = part["machine"]["cores"] * 1e6 / busy["median"] / 3600
    latency = f"{number(alone['more']['p50 ms'])} ms"
    return processor, precision, number(busy["median"]), number(hours), latency


def _peers(part: Part) -> Iterable[tuple[str, ...]]:
    for figure in part["figures"]:
        more = figure["more"]
        if "in flight" in more:
            ratio = figure["ratios"]["of plain TensorFlow"]["median"]
            name, in_flight = figure["name"], number(more["in flight"])
            yield (
                name,
                in_flight,
                number(figure["median"]),
                f"{ratio:.2f}",
                (f"{number(more['p99 ms'])} ms"),
            )


def _accuracy(part: Part) -> Iterable[tuple[str, ...]]:
    first = part["figures"][0]["table"]
    for figure in part["figures"]:
        if figure["table"] == first:
            more = figure["more"]
            yield figure["name"], more["median cosine"], more["overlap@10"], more["recall lost"]


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    rule = tuple("---:" if column else "---" for column in range(len(columns)))
    return "".join(f"| {' | '.join(row)} |\n" for row in (columns, rule, *rows))


def _machines(*parts: Part) -> str:
    places = (
        f"{part['date']} on {part['machine']['cores']} vCPUs of an {part['machine']['processor']}"
        for part in parts
    )
    text = f"Measured {', and '.join(places)}."
    return f"{textwrap.fill(text, 100, break_on_hyphens=False)}\n"
