"""The settings are checked, complete in the manifest, and fast to import."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest

from featurewire_exporter.preprocess import STATUS, PreprocessConfig, build_preprocess

WRONG: dict[str, list[Any]] = {
    "height": [0, -1, 4097, 2.0, True, None],
    "width": [0, "299"],
    "resize_method": ["nearest", "", None],
    "antialias": [1, None],
    "central_crop": [0, -0.5, 1.01, float("nan"), "1", True],
    "max_pixels": [0, -1, 1e6],
    "max_image_bytes": [0, 2**31],
    "exif_orientation": ["yes"],
    "input_range": [(1, 0), (0, 0), (0, float("nan")), (0, 1e9), (0, 1, 2), ("0", "1"), 255, None],
    "webp": [0],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n in WRONG for v in WRONG[n]])
def test_a_wrong_value_is_named_in_one_line(name: str, value: Any) -> None:
    config = PreprocessConfig(**{"height": 299, "width": 299, name: value})
    for use in (config.validate, lambda: build_preprocess(config)):
        with pytest.raises(ValueError, match=name) as error:
            use()
        assert "\n" not in str(error.value)


def test_the_manifest_has_every_setting_and_the_rules_behind_them() -> None:
    config = PreprocessConfig(height=299, width=224)
    manifest = config.as_manifest()
    assert json.loads(json.dumps(manifest)) == manifest
    assert {field.name for field in dataclasses.fields(config)} < set(manifest)
    assert manifest["algorithm_revision"] >= 1
    assert manifest["scaled_decode"] == {"8": 1.25, "4": 1.5, "2": 1.5}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(PreprocessConfig)])
def test_any_other_setting_is_another_manifest(name: str) -> None:
    other: dict[str, Any] = {
        "height": 300,
        "width": 300,
        "resize_method": "bicubic",
        "antialias": False,
        "central_crop": 0.9,
        "max_pixels": 1,
        "max_image_bytes": 1,
        "exif_orientation": False,
        "input_range": (0.0, 255.0),
        "webp": True,
    }
    config = PreprocessConfig(height=299, width=299)
    assert dataclasses.replace(config, **{name: other[name]}).as_manifest() != config.as_manifest()


def test_statuses_are_those_of_the_contract() -> None:
    assert STATUS == {0: "ok", 1: "empty", 2: "unsupported", 3: "too_large", 4: "corrupt"}


def test_the_settings_are_there_without_tensorflow() -> None:
    code = (
        "import sys; from featurewire_exporter.preprocess import *; "
        "PreprocessConfig(height=1, width=1).validate(); sys.exit('tensorflow' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], timeout=60)
    assert ended.returncode == 0
