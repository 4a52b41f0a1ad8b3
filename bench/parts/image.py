"""Steps of a single call and their times: one JPEG of 640 pixels in OpenVINO, without other load.

The steps and the whole call take turns. `preprocess` and the network have separate signatures and
are measured in process. The rest of the graph, and the server with the client, are differences. All
steps add up to the call of `embed`. Low and high are quartiles, because single calls vary.
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
"""By step: a measured time, and the measured times to subtract from it."""


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
    """The whole call, and each step as a difference of times from the same turn."""
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
    """The lower quartile, the median and the upper quartile, in milliseconds."""
    return [1000 * value for value in statistics.quantiles(seconds, n=4)]
