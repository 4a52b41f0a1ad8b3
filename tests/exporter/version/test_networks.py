"""OpenVINO reads the graphs beside the SavedModel alone, and computes the same vectors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from featurewire.manifest import FILE
from featurewire_exporter.version.artifact import ArtifactSession
from featurewire_exporter.version.networks import write_networks
from tests.server.split_model import DIMENSION, SIZE, small_network

WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None
import numpy as np
import openvino
model = openvino.Core().read_model(sys.argv[1])
found = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(
    np.load(sys.argv[2])
)
np.save(sys.argv[3], found[0])
"""


def computed(graph: Path, rows: np.ndarray, folder: Path) -> np.ndarray:
    """What OpenVINO computes in a process that cannot import TensorFlow."""
    given, found = folder / "given.npy", folder / "found.npy"
    np.save(given, rows)
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, *map(str, (graph, given, found))]
    subprocess.run(command, check=True, timeout=120)
    return np.load(found)


def test_openvino_computes_a_versions_vectors_without_tensorflow(tiny_version, tmp_path):
    files = json.loads((tiny_version / FILE).read_text())["networks"]
    assert files == {"image_feature_vector": "assets.extra/network.pb"}
    with ArtifactSession(tiny_version) as session:
        (images,) = session.signatures["image_feature_vector"].inputs.values()
        size = [dim.size for dim in images.tensor_shape.dim][1:]
        rows = np.random.default_rng(0).random((3, *size), np.float32)
        expected = session.run("image_feature_vector", images=rows)["default"]
    found = computed(tiny_version / files["image_feature_vector"], rows, tmp_path)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_a_bridge_has_a_graph_from_vectors_to_vectors(tmp_path):
    def halved(vectors: tf.Tensor) -> tf.Tensor:
        return vectors[:, : DIMENSION // 2] * 0.5

    files = write_networks(
        tmp_path, small_network(0), (SIZE, SIZE), DIMENSION, {"bridge_old": halved}
    )
    rows = np.random.default_rng(0).random((3, DIMENSION), np.float32)
    found = computed(tmp_path / files["bridge_old"], rows, tmp_path)
    np.testing.assert_array_equal(found, rows[:, : DIMENSION // 2] * 0.5)
