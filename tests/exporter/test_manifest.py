"""What is in the digests, and what is not."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from featurewire_exporter.manifest import vector_space, weights_digest
from featurewire_exporter.preprocess import PreprocessConfig

WEIGHTS = [np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(4, dtype=np.float32)]
CONFIG = PreprocessConfig(height=299, width=299)


def test_order_names_and_structure_do_not_count():
    ones = [np.ones(8, np.float32), np.zeros([2, 2], np.float32), np.array(0.17, np.float32)]
    indices = [np.array([1, 2], np.int32)]

    assert weights_digest(WEIGHTS) == weights_digest([*WEIGHTS[::-1], *ones, *indices])


@pytest.mark.parametrize(
    "changed",
    [
        [WEIGHTS[0] + np.float32(1e-6), WEIGHTS[1]],
        [WEIGHTS[0].T.copy(), WEIGHTS[1]],
        [WEIGHTS[0].reshape(3, 2), WEIGHTS[1]],
        [WEIGHTS[0]],
        [*WEIGHTS, WEIGHTS[1]],
    ],
    ids=["value", "transposed", "shape", "fewer", "more"],
)
def test_any_change_of_the_weights_counts(changed):
    assert weights_digest(changed) != weights_digest(WEIGHTS)


OTHER: dict[str, Any] = {
    "height": 298,
    "width": 298,
    "resize_method": "area",
    "antialias": False,
    "central_crop": 0.875,
    "max_pixels": 10,
    "max_image_bytes": 10,
    "exif_orientation": False,
    "webp": True,
}


@pytest.mark.parametrize("setting", [f.name for f in dataclasses.fields(PreprocessConfig)])
def test_every_setting_of_the_preprocessing_counts(setting):
    changed = dataclasses.replace(CONFIG, **{setting: OTHER[setting]})

    assert vector_space("w", changed.as_manifest()) != vector_space("w", CONFIG.as_manifest())


def test_the_weights_count():
    settings = CONFIG.as_manifest()
    assert vector_space("a", settings) != vector_space("b", settings)
    assert vector_space("a", settings) == vector_space("a", dict(reversed(settings.items())))
