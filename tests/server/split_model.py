"""Versions in the exporter's format, with a network small enough for a test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from featurewire_exporter.graph.freeze import FrozenNetwork
from featurewire_exporter.preprocess import PreprocessConfig
from featurewire_exporter.version.artifact import Artifact, Bridge
from featurewire_exporter.version.digests import seal
from featurewire_exporter.version.networks import write_networks

SIZE = 32
DIMENSION = 24


def small_network(seed: int) -> FrozenNetwork:
    """A network of two convolutions and the mean over all pixels."""
    random = np.random.default_rng(seed)
    with tf.Graph().as_default() as graph:
        images = tf.compat.v1.placeholder(tf.float32, [None, SIZE, SIZE, 3], name="in")
        x = images * 2.0 - 1.0
        for channels in (16, DIMENSION):
            weights = random.normal(0, 0.3, (3, 3, x.shape[-1], channels)).astype(np.float32)
            bias = random.normal(0, 0.3, channels).astype(np.float32)
            x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, weights, 2, "SAME"), bias))
        tf.reduce_mean(x, [1, 2], name="out")
    return FrozenNetwork(graph_def=graph.as_graph_def(), input="in", output="out:0")


def write_split_model(
    base_path: Path,
    version: int = 1,
    *,
    seed: int = 0,
    bridges: Mapping[str, Bridge] | None = None,
) -> Path:
    """Write `base_path/<version>` with the exporter's own preprocessing; returns its path.

    `bridges`: operations into older spaces, by the names of their signatures.
    """
    path = base_path / str(version)
    path.mkdir(parents=True)
    config, network = PreprocessConfig(height=SIZE, width=SIZE), small_network(seed)
    bridges = bridges or {}
    manifest = {
        "featurewire_version": "0.1.0",
        "preprocess": config.as_manifest(),
        "networks": write_networks(path, network, (SIZE, SIZE), DIMENSION, bridges),
        "vector_spaces": [
            {"vector_space": name, "signature": name, "bridged": True} for name in bridges
        ],
    }
    seal(path, manifest, Artifact(network, config, dimension=DIMENSION, bridges=bridges).write)
    return path
