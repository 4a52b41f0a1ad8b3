"""A map as TensorFlow operations, in float32."""

from __future__ import annotations

import tensorflow as tf

from featurewire_exporter.bridge.maps import Map


def build_map(fitted: Map, vectors: tf.Tensor) -> tf.Tensor:
    """Apply `fitted`: float32 `[N, new]` to float32 `[N, old]`."""
    roots = tf.sign(vectors) * tf.sqrt(tf.abs(vectors))
    centred = _unit(roots) - fitted.mean
    mapped = centred
    for factor in fitted.factors:
        mapped = tf.matmul(mapped, factor)
    if fitted.hidden is not None:
        weights, biases, out = fitted.hidden
        mapped += tf.matmul(tf.nn.relu(tf.matmul(centred, weights) + biases), out)
    return _unit(mapped + fitted.offset) * fitted.length


def _unit(vectors: tf.Tensor) -> tf.Tensor:
    return vectors / tf.maximum(tf.norm(vectors, axis=1, keepdims=True), 1e-12)
