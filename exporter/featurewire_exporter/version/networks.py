"""Writes a version's networks for engines without TensorFlow: frozen graphs, one file each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from featurewire_exporter.graph.freeze import FrozenNetwork
from featurewire_exporter.version.artifact import Bridge
from featurewire_exporter.version.manifest import EXTRAS

NETWORK = f"{EXTRAS}/network.pb"
"""Path within the version: pixels to vectors."""


def write_networks(
    version: Path,
    network: FrozenNetwork,
    size: tuple[int, int],
    dimension: int,
    bridges: Mapping[str, Bridge],
) -> dict[str, str]:
    """Write the network and one graph per bridge; returns the files by signature.

    `size`: height and width of the network's images. A file is a serialized GraphDef with one
    placeholder and one output. The graph of a bridge takes vectors, float32 `[N, dimension]`.
    """
    (version / EXTRAS).mkdir(exist_ok=True)
    (version / NETWORK).write_bytes(network.serialized([*size, 3]))
    files = {"image_feature_vector": NETWORK}
    for name, bridge in bridges.items():
        files[name] = f"{EXTRAS}/{name}.pb"
        (version / files[name]).write_bytes(_frozen(bridge, dimension).serialized([dimension]))
    return files


def _frozen(bridge: Bridge, dimension: int) -> FrozenNetwork:
    with tf.Graph().as_default() as graph:
        vectors = tf.compat.v1.placeholder(tf.float32, [None, dimension], name="vectors")
        mapped = bridge(vectors)
    return FrozenNetwork(graph_def=graph.as_graph_def(), input="vectors", output=mapped.name)
