"""`check` sends its images through the canary's bridge."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from featurewire_rollout.check import CheckConfig, Report, Thresholds, to_json
from tests.rollout.check.comparing import compared
from tests.support.models import write_turned_model
from tests.support.process import all_versions
from tests.support.shared import SharedServer, server_for_all_workers

IMAGES = 90
LATENCY_APART = Thresholds(max_latency_ratio=1000.0)
"""Allow any latency, so that a busy machine does not fail a version."""


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(IMAGES):
        (folder / f"{number:03}.jpg").write_bytes(b"\xff\xd8\xff" + number.to_bytes(2, "big"))
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[SharedServer]:
    """Version 2 has an exact bridge to version 1, and version 3 a wrong one."""

    def flags(folder: Path) -> list[str]:
        base = folder / "turned"
        write_turned_model(base, 1)
        write_turned_model(base, 2, bridge_to=1)
        write_turned_model(base, 3, bridge_to=1, turned_as=4)
        return [f"--model_config_file={all_versions(folder, 'turned', base)}"]

    with server_for_all_workers(tmp_path_factory, "turned", flags) as server:
        yield server


def check(server: SharedServer, images: Path, version: int) -> Report:
    stable, canary = ({"model": "turned", "version": each} for each in (1, version))
    return compared(server, images, stable, canary, CheckConfig(thresholds=LATENCY_APART))


def test_bridged_vectors_are_compared_with_those_of_the_old_version(server, images):
    report = check(server, images, 2)
    found = json.loads(json.dumps(to_json(report)))
    measures = {each["name"]: each["estimate"] for each in found["measures"]}
    assert report.verdict.text == (
        "new space, bridged: retention 1.00 at 10 "
        "(here: overlap@10 1.00, recall@1 1.00, recall@10 1.00)"
    )
    assert (measures["bridge_overlap_at_10"], measures["bridge_loss"]) == (1, 0)
    assert measures["overlap_at_10"] > 0.9  # a rotation keeps neighbours, but not in stable's index
    assert found["bridged"]["vector_space"] == "turned-2"
    assert found["bridged"]["errors"] == 0


def test_a_bridge_that_does_not_do_what_its_manifest_says_fails(server, images):
    report = check(server, images, 3)
    assert report.exit_status == 1
    assert report.verdict.text.startswith("new space, and its bridge keeps too little here")
    assert report.verdict.bridge is None
