"""The server's metrics, under TensorFlow Serving's names.

TensorFlow Serving's metric names are paths with ``/`` replaced by ``:``, and its latencies are in
microseconds. We use the same names, units and buckets, so that a dashboard works for both servers.
Metrics that TensorFlow Serving lacks are called ``featurewire_server_…``.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Collection, Iterable, Mapping

import grpc

from featurewire_server._tfs.monitoring_config_pb2 import MonitoringConfig
from featurewire_server.common.prometheus import CONTENT_TYPE, Counter, Family, Gauge, Histogram

DEFAULT_PATH = "/monitoring/prometheus/metrics"
"""TensorFlow Serving's path of the metrics page, used if MonitoringConfig does not set one."""


def exponential(scale: float, growth: float, count: int) -> tuple[float, ...]:
    """Upper limits ``scale * growth**i`` of `count` buckets, without the last one (infinity)."""
    return tuple(scale * growth**i for i in range(count))


INFERENCE = {"Predict", "Classify", "Regress", "MultiInference", "ModelInfer", "Embeddings"}
"""Calls that count as requests. Status and metadata do not, because probes would dominate."""

LATENCY_LIMITS = exponential(10, 1.8, 33)
"""Microseconds: 10 us to about 20 minutes."""
QUEUING_LIMITS = exponential(100, 1.2, 52)
"""Microseconds: 100 us to about 1 s."""
COUNT_LIMITS = exponential(1, 2, 15)
"""Rows: 1 to 16384."""


def page_path(config: MonitoringConfig) -> str:
    """The path of the Prometheus page that `--monitoring_config_file` asks for; empty: no page."""
    prometheus = config.prometheus_config
    return (prometheus.path or DEFAULT_PATH) if prometheus.enable else ""


class Metrics:
    """Collects the metrics and renders them as a Prometheus page. Thread-safe."""

    content_type = CONTENT_TYPE

    def __init__(self, path: str = "") -> None:
        """`path`: where REST serves the page; empty: not at all."""
        self.path = path
        self._started = time.time()
        self._request_count = Counter(
            ":tensorflow:serving:request_count", ("model_name", "status"), "Requests answered."
        )
        self._request_latency = Histogram(
            ":tensorflow:serving:request_latency",
            ("model_name", "API", "entrypoint"),
            "Microseconds from the arrival of a successful request to its answer.",
            LATENCY_LIMITS,
        )
        self._runtime_latency = Histogram(
            ":tensorflow:serving:runtime_latency",
            ("model_name", "API", "runtime"),
            "Microseconds that the engine spent on a request that was not batched.",
            LATENCY_LIMITS,
        )
        self._example_counts = Histogram(
            ":tensorflow:serving:request_example_counts",
            ("model",),
            "Rows (images, examples) in a request.",
            COUNT_LIMITS,
        )
        self._example_count_total = Counter(
            ":tensorflow:serving:request_example_count_total",
            ("model",),
            "Rows (images, examples) received.",
        )
        self._queuing_latency = Histogram(
            ":tensorflow:serving:batching_session:queuing_latency",
            ("thread_pool_name",),
            "Microseconds that a task waited for its batch to start; the pool has the name of "
            "the model.",
            QUEUING_LIMITS,
        )
        self._wrapped_run_count = Counter(
            ":tensorflow:serving:batching_session:wrapped_run_count", (), "Batches run."
        )
        self._warmup_latency = Histogram(
            ":tensorflow:serving:model_warmup_latency",
            ("model_path", "status"),
            "Microseconds spent replaying a version's warm-up records.",
            LATENCY_LIMITS,
        )
        self._load_attempts = Counter(
            ":tensorflow:cc:saved_model:load_attempt_count",
            ("model_path", "status"),
            "Attempts to load a version.",
        )
        self._load_latency = Counter(
            ":tensorflow:cc:saved_model:load_latency",
            ("model_path",),
            "Microseconds spent loading versions that loaded.",
        )
        self._batch_rows = Histogram(
            "featurewire_server_batch_rows",
            ("model_name",),
            "Rows of requests in a batch, padding left out.",
            COUNT_LIMITS,
        )
        self._padding_rows = Counter(
            "featurewire_server_batch_padding_rows_total",
            ("model_name",),
            "Rows added to batches to reach an allowed batch size.",
        )
        self._queued_batches = Gauge(
            "featurewire_server_queued_batches", ("model_name",), "Batches waiting for a thread."
        )
        self._rows_inflight = Gauge(
            "featurewire_server_rows_inflight",
            ("model_name",),
            "Rows (images) that wait for a batch or are in a running batch.",
        )
        self._inflight_bytes = Gauge(
            "featurewire_server_inflight_bytes", (), "Encoded bytes of the requests held."
        )
        self._version_state = Gauge(
            "featurewire_server_version_state",
            ("model_name", "version", "state"),
            "1 for a version's current state, 0 for its earlier states; absent after it is "
            "unloaded.",
        )
        self._available_versions = Gauge(
            "featurewire_server_available_versions",
            ("model_name",),
            "AVAILABLE versions of each model in the config, 0 included.",
        )
        self._label_version = Gauge(
            "featurewire_server_label_version",
            ("model_name", "label"),
            "The version that a label points to.",
        )
        self._engine = Gauge(
            "featurewire_server_version_engine",
            ("model_name", "version", "engine", "precision"),
            "1 for the engine and the precision of a version; absent after it is unloaded.",
        )
        self._resident = Gauge("process_resident_memory_bytes", (), "Resident memory.")
        self._start_time = Gauge("process_start_time_seconds", (), "Unix time of the start.")
        self._models: set[str] = set()
        self._states: dict[tuple[str, int], str] = {}
        self._paths: dict[tuple[str, int], str] = {}
        self._states_lock = threading.Lock()

    def observe_request(
        self, *, model: str, api: str, entrypoint: str, code: grpc.StatusCode, seconds: float
    ) -> None:
        """Count a request that has ended, after `seconds`.

        `api`: `Predict`, `Classify`, …; `entrypoint`: `GRPC` or `REST`.
        """
        if api not in INFERENCE:
            return
        self._request_count.add(model, code.name)
        if code is grpc.StatusCode.OK:
            self._request_latency.observe(model, api, entrypoint, value=seconds * 1e6)

    def observe_runtime(self, *, model: str, api: str, seconds: float) -> None:
        """Record the engine's time for a request without batching."""
        self._runtime_latency.observe(model, api, "TF1", value=seconds * 1e6)

    def observe_examples(self, *, model: str, count: int) -> None:
        self._example_counts.observe(model, value=count)
        self._example_count_total.add(model, amount=count)

    def observe_load(
        self, *, model: str, version: int, path: str, ok: bool, seconds: float
    ) -> None:
        """Record the end of an attempt to load a version; `seconds` excludes warm-up."""
        with self._states_lock:
            self._paths[model, version] = path
        self._load_attempts.add(path, "success" if ok else "fail")
        if ok:
            self._load_latency.add(path, amount=int(seconds * 1e6))

    def observe_engine(self, *, model: str, version: int, engine: str, precision: str) -> None:
        self._engine.forget(model, str(version))  # an earlier load may have used another engine
        self._engine.set(model, str(version), engine, precision, value=1)

    def observe_warmup(self, *, path: str, ok: bool, seconds: float) -> None:
        self._warmup_latency.observe(path, "OK" if ok else "UNKNOWN", value=seconds * 1e6)

    def observe_state(self, *, model: str, version: int, state: str) -> None:
        with self._states_lock:
            before = self._states.pop((model, version), None)
            if state == "END":  # remove its series, or old versions would fill the page
                self._version_state.forget(model, str(version))
                self._engine.forget(model, str(version))
            if state == "END" and before == "UNLOADING":
                self._forget_path(self._paths.pop((model, version), None))
                return
            self._states[model, version] = state
            self._count_available(model)
            if before is not None and state != "END":
                self._version_state.set(model, str(version), before, value=0)
            self._version_state.set(model, str(version), state, value=1)

    def observe_models(self, *, models: Collection[str]) -> None:
        """Set the models of the config in force. The page counts the versions of each of them."""
        with self._states_lock:
            for gone in self._models.difference(models):
                self._available_versions.forget(gone)
            self._models = {*models}
            for model in models:
                self._count_available(model)

    def _count_available(self, model: str) -> None:
        if model in self._models:
            states = [state for (name, _), state in self._states.items() if name == model]
            self._available_versions.set(model, value=states.count("AVAILABLE"))

    def _forget_path(self, path: str | None) -> None:
        if path is not None and path not in self._paths.values():
            for family in (self._load_attempts, self._load_latency, self._warmup_latency):
                family.forget(path)

    def observe_labels(self, *, labels: Mapping[str, Mapping[str, int]]) -> None:
        """Set the labels in force: model name to label to version."""
        self._label_version.forget()
        for model, versions in labels.items():
            for label, version in versions.items():
                self._label_version.set(model, label, value=version)

    def observe_queuing(self, *, model: str, seconds: float) -> None:
        self._queuing_latency.observe(model, value=seconds * 1e6)

    def observe_batch(self, *, model: str, size: int, padding: int) -> None:
        self._wrapped_run_count.add()
        self._batch_rows.observe(model, value=size)
        self._padding_rows.add(model, amount=padding)

    def observe_queue(self, *, model: str, batches: int) -> None:
        self._queued_batches.set(model, value=batches)

    def observe_rows_inflight(self, *, model: str, change: int) -> None:
        self._rows_inflight.add(model, amount=change)

    def observe_inflight(self, *, bytes_: int) -> None:
        self._inflight_bytes.set(value=bytes_)

    def counts(self, names: Iterable[str]) -> dict[str, int]:
        """The totals of the counters in `names`; 0 for a name without a counter.

        A name is TensorFlow Serving's path of the metric, or its name on the page.
        """
        counters = {each.name: each for each in vars(self).values() if isinstance(each, Counter)}
        found = {name: counters.get(name.replace("/", ":")) for name in names}
        return {name: each.total() if each else 0 for name, each in found.items()}

    def page(self) -> bytes:
        """All metrics with at least one series, in Prometheus' text format 0.0.4."""
        self._resident.set(value=_resident_bytes())
        self._start_time.set(value=self._started)
        families = [value for value in vars(self).values() if isinstance(value, Family)]
        return "".join(f"{line}\n" for family in families for line in family.lines()).encode()


def _resident_bytes() -> float:
    """The resident memory of the process in bytes; NaN if the system is not Linux."""
    if sys.platform == "win32":
        return float("nan")
    try:
        with open("/proc/self/statm") as file:
            return float(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    except OSError:
        return float("nan")
