"""Encoded images to the network's input, as a graph that TensorFlow Serving runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from featurewire_exporter.preprocess.config import (
    MAX_TARGET_SIDE,
    MIN_TENSORFLOW,
    RESIZE_METHODS,
    STATUS,
    PreprocessConfig,
)

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "MAX_TARGET_SIDE",
    "MIN_TENSORFLOW",
    "RESIZE_METHODS",
    "STATUS",
    "PreprocessConfig",
    "build_decode",
    "build_preprocess",
]


def build_preprocess(
    config: PreprocessConfig,
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Returns a function from encoded images to the network's input.

    It maps a string tensor [N] to (images float32 [N, height, width, 3] in [0, 1], status
    int32 [N]), in a TF1 graph under construction, in a `tf.function` or eagerly. A row whose
    status is not 0 is all zeros. No bytes make it raise, and no row depends on another.

    Raises ValueError for settings that cannot work.
    """
    decode = build_decode(config)
    from featurewire_exporter.preprocess.batch import spread

    def preprocess(image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, status = decode(image_bytes)
        return spread(images, status, 0.0), status

    return preprocess


def build_decode(
    config: PreprocessConfig,
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """The same, but `images` holds those rows alone whose status is 0, in their order."""
    # Here, not above: reading the settings' defaults must not load TensorFlow.
    from featurewire_exporter.preprocess.batch import batch_decode

    config.validate()
    return batch_decode(config)
