"""Examples of docs/client.md and the README run and pass type checks as printed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import featurewire
from tests.client.misbehaving import Misbehaving, image
from tests.client.test_views import TYPED

ROOT = Path(__file__).resolve().parents[2]


def examples(heading: str) -> list[str]:
    """The Python blocks under a heading of the client's page."""
    page = (ROOT / "docs" / "client.md").read_text()
    text = re.split(rf"^##+ {re.escape(heading)}$", page, flags=re.M)[1]
    return re.findall(r"```python\n(.*?)```", re.split(r"^##+ ", text, flags=re.M)[0], re.S)


@pytest.fixture
def client():
    with Misbehaving() as server, featurewire.Client(server.target, model="tiny") as client:
        client.embed_batch([image(0), image(1), b""])
        yield client


def test_the_counters_reach_prometheus(client, monkeypatch):
    prometheus_client = pytest.importorskip("prometheus_client")
    registry = prometheus_client.CollectorRegistry()
    monkeypatch.setattr("prometheus_client.core.REGISTRY", registry)
    prometheus, _ = examples("Counters for Prometheus and OpenTelemetry")
    exec(prometheus, {"client": client})
    text = prometheus_client.generate_latest(registry).decode()
    assert "featurewire_images_total 3.0" in text
    assert "featurewire_image_errors_total 1.0" in text
    assert "featurewire_retries_total 0.0" in text


def test_the_counters_reach_opentelemetry(client):
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
    _, opentelemetry = examples("Counters for Prometheus and OpenTelemetry")
    exec(opentelemetry, {"client": client})
    data = json.loads(reader.get_metrics_data().to_json())
    metric = data["resource_metrics"][0]["scope_metrics"][0]["metrics"][0]
    assert metric["name"] == "featurewire.images"
    assert metric["data"]["data_points"][0]["value"] == 3


def test_the_recipe_for_an_index_pins_the_newest_available_version():
    by_hand = examples("One version for a whole index")[1]
    with Misbehaving() as server, featurewire.Client(server.target, model="tiny") as client:
        server.states = [(2, 30), (4, 50), (1, 30), (3, 20)]  # 3 is loading, 4 unloaded
        names: dict[str, Any] = {"client": client}
        exec(by_hand, names)
        assert names["version"] == 2
        assert repr(names["pinned"]).endswith("version=2)")


@pytest.mark.slow
def test_the_ten_lines_of_the_readme_pass_pyright(tmp_path):
    if (pyright := shutil.which("pyright")) is None:
        pytest.skip("pyright is not on the PATH; `npm install pyright` brings it (it needs node)")
    example = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "example.py").write_text(TYPED.format(example=example))
    settings: dict[str, Any] = {"extraPaths": [str(ROOT / "client")], "typeCheckingMode": "strict"}
    settings |= {"pythonVersion": "3.11", "reportUnknownMemberType": False}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [pyright, "--outputjson", "example.py"],
        capture_output=True, text=True, timeout=240, check=False, cwd=tmp_path,
    )  # fmt: skip
    found = [
        f"{each['range']['start']['line']}: {each['message']}"
        for each in json.loads(done.stdout)["generalDiagnostics"]
        if each["severity"] == "error"
    ]
    assert not found
