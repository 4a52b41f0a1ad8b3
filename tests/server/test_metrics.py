"""The metrics page has TensorFlow Serving's names, in Prometheus' text format."""

from __future__ import annotations

import re
import threading

import grpc

from featurewire_server._tfs.monitoring_config_pb2 import MonitoringConfig
from featurewire_server.common import prometheus
from featurewire_server.common.metrics import Metrics, page_path

LATENCY = ":tensorflow:serving:request_latency"
LABELS = 'model_name="m",API="Predict",entrypoint="GRPC"'
LINE = re.compile(
    r"(# (HELP|TYPE) [a-zA-Z_:][a-zA-Z0-9_:]* .+"
    r"|[a-zA-Z_:][a-zA-Z0-9_:]*(\{[a-zA-Z_]\w*=\"([^\"\\\n]|\\.)*\""
    r"(,[a-zA-Z_]\w*=\"([^\"\\\n]|\\.)*\")*\})? -?([0-9.e+-]+|NaN|\+Inf))"
)


def page_of(observed: Metrics) -> dict[str, float]:
    """Samples by name and labels; fails on invalid lines."""
    samples = {}
    for line in observed.page().decode().splitlines():
        assert LINE.fullmatch(line), line
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            samples[name] = float(value)
    return samples


def observe_request(observed: Metrics, **changes: object) -> None:
    values = {
        "model": "m",
        "api": "Predict",
        "entrypoint": "GRPC",
        "code": grpc.StatusCode.OK,
        "seconds": 0.0001,
    }
    observed.observe_request(**(values | changes))


def observe_everything(observed: Metrics) -> None:
    observe_request(observed)
    observed.observe_runtime(model="m", api="Predict", seconds=0.5)
    observed.observe_examples(model="m", count=16)
    observed.observe_load(model="m", version=1, path="/m/1", ok=True, seconds=1.0)
    observed.observe_engine(model="m", version=1, engine="openvino", precision="int8")
    observed.observe_warmup(path="/m/1", ok=True, seconds=1.0)
    observed.observe_state(model="m", version=1, state="AVAILABLE")
    observed.observe_models(models=["m", "empty"])
    observed.observe_labels(labels={"m": {"stable": 1, "canary": 2}, "n": {"old": 1}})
    observed.observe_labels(labels={"m": {"stable": 2}, "n": {}})
    observed.observe_queuing(model="m", seconds=0.001)
    observed.observe_batch(model="m", size=3, padding=1)
    observed.observe_queue(model="m", batches=2)
    observed.observe_rows_inflight(model="m", change=5)
    observed.observe_rows_inflight(model="m", change=-2)
    observed.observe_inflight(bytes_=1000)


def test_every_observation_shows_under_tensorflow_servings_name():
    observed = Metrics()
    observe_everything(observed)
    samples = page_of(observed)
    assert samples[':tensorflow:serving:request_count{model_name="m",status="OK"}'] == 1
    assert samples[f"{LATENCY}_count{{{LABELS}}}"] == 1
    assert samples[':tensorflow:serving:request_example_count_total{model="m"}'] == 16
    assert samples[':tensorflow:cc:saved_model:load_latency{model_path="/m/1"}'] == 1e6
    warmup = ':tensorflow:serving:model_warmup_latency_sum{model_path="/m/1",status="OK"}'
    assert samples[warmup] == 1e6
    queuing = ":tensorflow:serving:batching_session:queuing_latency_sum"
    assert samples[f'{queuing}{{thread_pool_name="m"}}'] == 1000
    runtime = ":tensorflow:serving:runtime_latency_sum"
    assert samples[f'{runtime}{{model_name="m",API="Predict",runtime="TF1"}}'] == 5e5
    assert samples['featurewire_server_batch_rows_sum{model_name="m"}'] == 3
    assert samples['featurewire_server_batch_padding_rows_total{model_name="m"}'] == 1
    assert samples['featurewire_server_queued_batches{model_name="m"}'] == 2
    labels = [name for name in samples if name.startswith("featurewire_server_label_version")]
    assert labels == ['featurewire_server_label_version{model_name="m",label="stable"}']
    assert samples[labels[0]] == 2
    engine = 'model_name="m",version="1",engine="openvino",precision="int8"'
    assert samples[f"featurewire_server_version_engine{{{engine}}}"] == 1
    assert samples['featurewire_server_rows_inflight{model_name="m"}'] == 3
    assert samples["featurewire_server_inflight_bytes"] == 1000
    assert samples["process_resident_memory_bytes"] > 1e6


def test_latencies_are_microseconds_in_tensorflow_servings_buckets():
    observed = Metrics()
    observe_request(observed, seconds=20e-6)
    samples = page_of(observed)
    buckets = {
        float(le): samples[name]
        for name in samples
        if name.startswith(f"{LATENCY}_bucket") and (le := name.split('le="')[1].rstrip('"}'))
    }
    assert len(buckets) == 34
    assert [buckets[limit] for limit in (10, 18, 32.4, 58.32, float("inf"))] == [0, 0, 1, 1, 1]
    assert samples[f"{LATENCY}_sum{{{LABELS}}}"] == 20


def test_failed_requests_are_counted_by_code_and_not_in_the_latency():
    observed = Metrics()
    observe_request(observed, code=grpc.StatusCode.NOT_FOUND)
    samples = page_of(observed)
    assert samples[':tensorflow:serving:request_count{model_name="m",status="NOT_FOUND"}'] == 1
    assert not any(name.startswith(LATENCY) for name in samples)


def test_probes_are_not_requests():
    observed = Metrics()
    observe_request(observed, api="GetModelStatus")
    observe_request(observed, api="GetModelMetadata")
    assert not any("request" in name for name in page_of(observed))


def test_a_version_is_in_one_state():
    observed = Metrics()
    for state in ("START", "LOADING", "AVAILABLE"):
        observed.observe_state(model="m", version=3, state=state)
    name = 'featurewire_server_version_state{model_name="m",version="3",state='
    states = {k.removeprefix(name): v for k, v in page_of(observed).items() if k.startswith(name)}
    assert states == {'"START"}': 0, '"LOADING"}': 0, '"AVAILABLE"}': 1}


def test_versions_that_come_and_go_leave_nothing_on_the_page():
    observed = Metrics()
    for version in range(1, 1500):
        for state in ("START", "LOADING", "AVAILABLE", "UNLOADING", "END"):
            if state == "LOADING":
                path = f"/m/{version}"
                observed.observe_load(model="m", version=version, path=path, ok=True, seconds=1)
                observed.observe_engine(
                    model="m", version=version, engine="openvino", precision="float32"
                )
                observed.observe_warmup(path=path, ok=True, seconds=1)
            observed.observe_state(model="m", version=version, state=state)
    assert not any("version" in name or "model_path" in name for name in page_of(observed))
    observed.observe_state(model="m", version=1500, state="LOADING")
    observed.observe_state(model="m", version=1500, state="END")  # failed, never loaded
    series = [name for name in page_of(observed) if "version" in name]
    assert series == ['featurewire_server_version_state{model_name="m",version="1500",state="END"}']


def test_every_configured_model_has_a_count_of_versions():
    observed = Metrics()

    def counts() -> dict[str, float]:
        name = 'featurewire_server_available_versions{model_name="'
        page = page_of(observed).items()
        return {k.removeprefix(name).rstrip('"}'): v for k, v in page if k.startswith(name)}

    observed.observe_models(models=["m", "n"])
    assert counts() == {"m": 0, "n": 0}
    for version in (1, 2):
        observed.observe_state(model="m", version=version, state="AVAILABLE")
    observed.observe_state(model="n", version=1, state="END")  # it failed to load
    assert counts() == {"m": 2, "n": 0}
    for state in ("UNLOADING", "END"):
        observed.observe_state(model="m", version=1, state=state)
    assert counts() == {"m": 1, "n": 0}
    observed.observe_models(models=["n"])
    observed.observe_state(model="m", version=2, state="UNLOADING")  # removed from the config
    assert counts() == {"n": 0}


def test_labels_are_escaped():
    observed = Metrics()
    observe_request(observed, model='a"b\\c\nd')
    name = ':tensorflow:serving:request_count{model_name="a\\"b\\\\c\\nd",status="OK"}'
    assert page_of(observed)[name] == 1


def test_invented_model_names_cannot_fill_the_memory(monkeypatch):
    monkeypatch.setattr(prometheus, "MAX_SERIES", 100)
    observed = Metrics()
    for number in range(150):
        observe_request(observed, model=f"m{number}", code=grpc.StatusCode.NOT_FOUND)
    counts = [v for k, v in page_of(observed).items() if k.startswith(":tensorflow:serving:")]
    assert len(counts) == 101  # including one for all others
    assert sum(counts) == 150


def test_no_observation_is_lost_between_threads():
    observed = Metrics()

    def work() -> None:
        for _ in range(1000):
            observe_request(observed)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert page_of(observed)[f"{LATENCY}_count{{{LABELS}}}"] == 8000


def test_the_page_is_there_only_when_the_monitoring_config_enables_it():
    config = MonitoringConfig()
    assert page_path(config) == ""
    config.prometheus_config.enable = True
    assert page_path(config) == "/monitoring/prometheus/metrics"
    config.prometheus_config.path = "/metrics"
    assert page_path(config) == "/metrics"
