"""Where the time of one image goes, when nobody else asks: OpenVINO, one JPEG of 640 pixels.

The parts are measured in turns with the whole: `preprocess` and the network are signatures of their
own, in process; the rest of the graph, the server and the client are differences. They add up to
the call of `embed`. Low and high are the quartiles: single calls jitter.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np

from bench import engines, models
from bench._published import serving
from bench._serving_load import MODEL, jpegs
from bench.results import Figure
from bench.sharing import shared
from bench.timing import in_turns
from featurewire import Client
from featurewire_server.engines.engine import Engine

WHOLE = "embed() over gRPC"
STEPS = {
    "decode and resize": ("preprocess", None),
    "network": ("network", None),
    "rest of the graph": ("graph", ("preprocess", "network")),
    "gRPC, server and client": (WHOLE, ("graph",)),
}
"""What is measured, less what."""


def measure(quick: bool) -> list[Figure]:
    figures = []
    for precision in ("bfloat16",) if quick else ("float32", "bfloat16", "int8"):
        version = models.stand_in_with(precision)
        if version is None:
            continue
        engine = engines.load(version, "openvino", precision)
        flags = ("--engine=openvino", f"--engine_precision={precision}")
        with (
            shared(serving, version.parent, MODEL, *flags) as target,
            Client(target, model=MODEL) as client,
        ):
            client.wait_until_ready(120)
            times = in_turns(_runs(engine, client), 10 if quick else 60)
        figures += _figures(f"{precision}", times)
    return figures


def _runs(engine: Engine, client: Client) -> dict[str, Callable[[], object]]:
    image = jpegs()[0]
    encoded = np.array([image], object)
    images = engine.run("preprocess", {"image_bytes": encoded}, ["images"])["images"]
    return {
        "preprocess": lambda: engine.run("preprocess", {"image_bytes": encoded}, ["images"]),
        "network": lambda: engine.run("image_feature_vector", {"images": images}, ["default"]),
        "graph": lambda: engine.run("serving_default", {"image_bytes": encoded}, ["features"]),
        WHOLE: lambda: client.embed(image),
    }


def _figures(table: str, times: dict[str, list[float]]) -> list[Figure]:
    """The whole, and each step as the difference of what was measured in one turn."""
    figures = [
        Figure(table=table, name=WHOLE, unit="ms", values=_middle(times[WHOLE])),
    ]
    for name, (whole, less) in STEPS.items():
        columns = [times[each] for each in (whole, *(less or ()))]
        values = [first - sum(others) for first, *others in zip(*columns, strict=True)]
        share = statistics.median(values) / statistics.median(times[WHOLE])
        figures.append(
            Figure(
                table=table,
                name=name,
                unit="ms",
                values=_middle(values),
                more={"of the whole": f"{share:.1%}"},
            )
        )
    return figures


def _middle(seconds: list[float]) -> list[float]:
    """The quarters: lowest, median and highest of the middle half, in ms."""
    return [1000 * value for value in statistics.quantiles(seconds, n=4)]
