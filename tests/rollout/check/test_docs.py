"""The page about `check` documents every option and every key of the report."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml

from featurewire_rollout.check import Pairs, Side, Thresholds, judge, to_json
from featurewire_rollout.cli.check_options import add_check_options
from featurewire_rollout.command import rollout_parser
from tests.support.usage import help_of, options_in

PAGE = Path(__file__).resolve().parents[3] / "docs" / "rollout-check.md"


def keys_of(value: object) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for each in value.values() for key in keys_of(each)}
    return {key for each in value for key in keys_of(each)} if isinstance(value, list) else set()


def test_every_option_and_its_default_are_documented():
    parser = argparse.ArgumentParser()
    add_check_options(parser)
    text = PAGE.read_text()
    options = options_in(help_of(parser))
    assert options
    assert [each for each in options if f"`{each}" not in text] == []
    for name, default in Thresholds().__dict__.items():
        lines = [line for line in text.splitlines() if f"`{name}`" in line]
        assert any(re.search(rf"(?<![\d.]){default:g}(?![\d.]*\d)", line) for line in lines), name


def test_every_key_of_the_report_is_documented():
    rows = np.random.default_rng(0).standard_normal((40, 16))
    sides = [
        Side(name=name, version=version, vectors=rows, latencies=np.ones(40), crops=rows)
        for name, version in (("stable", 1), ("canary", 2))
    ]
    made = Pairs(model="m", names=("x",) * 40, stable=sides[0], canary=sides[1])
    report = to_json(judge(made, Thresholds()))
    text = PAGE.read_text()
    keys = keys_of({key: value for key, value in report.items() if key != "thresholds"})
    found = keys | {"thresholds"} | {each["name"] for each in report["measures"]}
    shares = {f"p{each}" for each in (25, 50, 75)}  # the page names p5 and p95
    assert sorted(key for key in found - shares if f"`{key}`" not in text) == []


def test_the_pipeline_examples_are_yaml_that_calls_check():
    """A valid Kubernetes Job and a webhook, with valid options of `check`."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    template, webhook = (yaml.safe_load(each) for each in blocks)
    assert (template["apiVersion"], template["kind"]) == (
        "argoproj.io/v1alpha1",
        "AnalysisTemplate",
    )
    (metric,) = template["spec"]["metrics"]
    assert metric["failureLimit"] == 0  # the first exit status other than 0 ends the rollout
    spec = metric["provider"]["job"]["spec"]
    assert spec["backoffLimit"] == 0
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {each["name"] for each in container["volumeMounts"]}
    assert mounts == {each["name"] for each in pod["volumes"]}
    (hook,) = webhook["webhooks"]
    assert (hook["type"], hook["metadata"]["type"]) == ("pre-rollout", "bash")
    commands = [
        [*container["command"], *container["args"]],
        shlex.split(hook["metadata"]["cmd"]),
    ]
    for featurewire, rollout, *argv in commands:
        assert (featurewire, rollout) == ("featurewire", "rollout")
        assert rollout_parser().parse_args(argv).step == "check"
    validate = pytest.importorskip("kubernetes_validate")
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "check"}, "spec": spec}
    validate.validate(job, validate.latest_version(), strict=True)
