"""Inception ResNet V2 with given weights, written as a module in TF1 Hub format."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from featurewire_exporter.source import tf1_hub
from featurewire_exporter.source.network import (
    FULL_SIZE,
    IMAGE_SIZE,
    SCOPE,
    Network,
    Size,
    build_network,
)

tf1 = tf.compat.v1


def write_network_module(
    directory: Path, variables: Mapping[str, np.ndarray], *, size: Size = FULL_SIZE
) -> Path:
    """Write both graph variants and the checkpoint into `directory` (created) and return it.

    `variables`: a float32 array for every name of `variable_shapes(size)`.
    """
    meta_graphs = [_meta_graph(size, training=False)[0], _meta_graph(size, training=True)[0]]
    tf1_hub.write_module(directory, meta_graphs=meta_graphs, variables=variables)
    return directory


@cache
def variable_shapes(size: Size = FULL_SIZE) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the network's variables (896 at full size), in the order of creation."""
    return _meta_graph(size, training=False)[1]


@cache
def _meta_graph(size: Size, *, training: bool) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """One graph variant, and its variables' shapes by name."""
    with tf.Graph().as_default():
        images = tf1.placeholder(tf.float32, [None, IMAGE_SIZE, IMAGE_SIZE, 3], name="images")
        network = build_network(images, training=training, size=size)
        shapes = {v.op.name: tuple(v.shape.as_list()) for v in tf1.global_variables()}
        meta = tf1_hub.meta_graph(
            tags=["train"] if training else [],
            signatures=_signatures(images, network),
            image_size=(IMAGE_SIZE, IMAGE_SIZE),
        )
        return meta, shapes


def _signatures(
    images: tf.Tensor, network: Network
) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    features = {"default": network.features}
    end_points = {f"{SCOPE}/{name}": point for name, point in network.end_points.items()}
    return {
        "default": ({"images": images}, features),
        "image_feature_vector": ({"images": images}, {**features, **end_points}),
    }
