"""The page on `check` names what there is to set and to read."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import yaml

from featurewire_rollout.check import Pairs, Side, Thresholds, add_check_options, judge

PAGE = Path(__file__).resolve().parents[2] / "docs" / "rollout-check.md"


def keys_of(value: object) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for each in value.values() for key in keys_of(each)}
    return {key for each in value for key in keys_of(each)} if isinstance(value, list) else set()


def test_every_option_and_its_default_are_documented():
    parser = argparse.ArgumentParser()
    add_check_options(parser)
    text = PAGE.read_text()
    options = [each for action in parser._actions for each in action.option_strings]
    missing = [each for each in options if each.startswith("--") and f"`{each}" not in text]
    assert missing == ["--help"]
    for name, default in Thresholds().__dict__.items():
        lines = [line for line in text.splitlines() if f"--{name.replace('_', '-')}" in line]
        assert any(re.search(rf"(?<![\d.]){default:g}(?![\d.]*\d)", line) for line in lines), name


def test_every_key_of_the_report_is_documented():
    rows = np.random.default_rng(0).standard_normal((40, 16))
    sides = [
        Side(name=name, version=version, vectors=rows, latencies=np.ones(40), crops=rows)
        for name, version in (("stable", 1), ("canary", 2))
    ]
    made = Pairs(model="m", names=("x",) * 40, stable=sides[0], canary=sides[1])
    report = judge(made, Thresholds()).to_json()
    text = PAGE.read_text()
    keys = keys_of({key: value for key, value in report.items() if key != "thresholds"})
    found = keys | {"thresholds"} | {each["name"] for each in report["measures"]}
    shares = {f"p{each}" for each in (25, 50, 75)}  # between the two that are named
    assert sorted(key for key in found - shares if f"`{key}`" not in text) == []


def test_the_pipeline_examples_are_yaml_that_calls_check():
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    job, webhook = (yaml.safe_load(each) for each in blocks)
    container = job["spec"]["metrics"][0]["provider"]["job"]["spec"]["template"]["spec"]
    assert container["containers"][0]["command"] == ["featurewire", "rollout", "check"]
    assert "featurewire rollout check" in webhook["webhooks"][0]["metadata"]["cmd"]
