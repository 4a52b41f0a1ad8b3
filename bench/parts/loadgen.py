"""MLPerf's Offline and Server scenarios: the real LoadGen drives the client.

Offline sends all images in one query. Server sends images at Poisson times (an open loop) at 0.93
of Offline's rate, and its latencies count from the time when an image was due. The limit on the
99th percentile is the time of five full batches. Runs are shorter than MLPerf's ten minutes.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import models
from bench._published import serving
from bench._serving_load import BATCH, MODEL, jpegs
from bench.results import Figure
from bench.sharing import shared
from bench.timing import told_by
from featurewire import AsyncClient, Client

BATCHES = 5
SHARE = 0.93
"""Rate of the Server scenario, as a fraction of Offline's. The goal is to answer 0.9 of it."""
IN_FLIGHT = 64
"""Number of images of the Offline query that are sent at a time."""


def measure(quick: bool) -> list[Figure]:
    figures = []
    for precision in ("bfloat16",) if quick else ("float32", "bfloat16", "int8"):
        version = models.stand_in_with(precision)
        if version is not None:
            figures += _scenarios(version, precision, 6.0 if quick else 40.0)
    return figures


def _scenarios(version: Path, precision: str, seconds: float) -> list[Figure]:
    flags = ("--engine=openvino", f"--engine_precision={precision}")
    with shared(serving, version.parent, MODEL, *flags) as target:
        with Client(target, model=MODEL) as client:
            client.wait_until_ready(120)
        with Driver(target, jpegs()) as driver:
            driver.offline(expected=5.0, seconds=min(seconds / 4, 3.0))
            offline = driver.offline(expected=30.0, seconds=min(seconds / 4, 10.0))
            rate = offline["Samples per second"]
            bound = BATCHES * BATCH / rate
            server = driver.server(SHARE * rate, bound, seconds)
    table = f"OpenVINO, {precision}"
    p99 = server["99.00 percentile latency (ns)"] / 1e9
    return [
        Figure(table=table, name="Offline", unit="images/s", values=[rate]),
        Figure(
            table=table,
            name="Server",
            unit="images/s",
            values=[server["Completed samples per second"]],
            peers={"of Offline": "Offline"},
            more={
                "bound ms": 1000 * bound,
                **latencies(server),
                "p99 of the bound": p99 / bound,
                "LoadGen's verdict": "valid" if server["valid"] else "invalid",
            },
        ),
    ]


def latencies(found: Mapping[str, float]) -> dict[str, float]:
    """LoadGen's latency percentiles that the number of samples supports, in milliseconds."""
    return {
        f"{name} ms": found[f"{100 * share:.2f} percentile latency (ns)"] / 1e6
        for name, share in told_by(int(found["samples"])).items()
    }


class Driver:
    """LoadGen's system under test: an `AsyncClient` with its own event loop and thread."""

    def __init__(self, target: str, contents: list[bytes]) -> None:
        self._target = target
        self._contents = contents
        self._samples = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Driver:
        self._thread.start()
        self._client = AsyncClient(self._target, model=MODEL, timeout=120)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._client.aclose(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def offline(self, *, expected: float, seconds: float) -> dict[str, float]:
        """Run Offline and return LoadGen's summary. `expected`: images/s, sets the query's size."""
        import mlperf_loadgen as lg

        settings = self._settings(lg.TestScenario.Offline, seconds)
        settings.offline_expected_qps = expected
        return self._test(settings)

    def server(self, rate: float, bound: float, seconds: float) -> dict[str, float]:
        """Run Server. `rate`: images/s; `bound`: limit of the 99th percentile, in seconds."""
        import mlperf_loadgen as lg

        settings = self._settings(lg.TestScenario.Server, seconds)
        settings.server_target_qps = rate
        settings.server_target_latency_ns = int(1e9 * bound)
        settings.server_target_latency_percentile = 0.99
        return self._test(settings)

    def _settings(self, scenario: Any, seconds: float) -> Any:
        import mlperf_loadgen as lg

        settings = lg.TestSettings()
        settings.scenario = scenario
        settings.mode = lg.TestMode.PerformanceOnly
        settings.min_duration_ms = int(1000 * seconds)
        settings.min_query_count = 1
        return settings

    def _test(self, settings: Any) -> dict[str, float]:
        import mlperf_loadgen as lg

        with tempfile.TemporaryDirectory() as folder:
            logs = lg.LogSettings()
            logs.log_output = lg.LogOutputSettings()
            logs.log_output.outdir = folder
            logs.log_output.copy_summary_to_stdout = False
            logs.enable_trace = False
            system = lg.ConstructSUT(self._issue, lambda: None)
            count = len(self._contents)
            library = lg.ConstructQSL(count, count, lambda _: None, lambda _: None)
            self._samples = 0
            try:
                lg.StartTestWithLogSettings(system, library, settings, logs)
            finally:
                lg.DestroyQSL(library)
                lg.DestroySUT(system)
            told = summary(Path(folder, "mlperf_log_summary.txt").read_text())
            return told | {"samples": self._samples}

    def _issue(self, samples: list[Any]) -> None:
        """Called by LoadGen, on its own thread, with the images of a query."""
        self._samples += len(samples)
        self._loop.call_soon_threadsafe(self._start, samples)

    def _start(self, samples: list[Any]) -> None:
        """Start only one task per image, because the client shares its CPUs with the server."""
        gate = asyncio.Semaphore(IN_FLIGHT)
        for sample in samples:
            task = self._loop.create_task(self._answer(sample, gate))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, sample: Any, gate: asyncio.Semaphore) -> None:
        import mlperf_loadgen as lg

        async with gate:
            await self._client.embed(self._contents[sample.index])
        lg.QuerySamplesComplete([lg.QuerySampleResponse(sample.id, 0, 0)])


def summary(text: str) -> dict[str, float]:
    """The numbers of LoadGen's summary by name; `valid` is its verdict."""
    found = re.findall(r"^(.+?)\s*: ([\d.e+]+)$", text, re.MULTILINE)
    return {name.strip(): float(value) for name, value in found} | {
        "valid": float("Result is : VALID" in text)
    }
