"""Encoded images to the network's input, as a graph that TensorFlow Serving runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .config import MAX_TARGET_SIDE, MIN_TENSORFLOW, RESIZE_METHODS, STATUS, PreprocessConfig

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "MAX_TARGET_SIDE",
    "MIN_TENSORFLOW",
    "RESIZE_METHODS",
    "STATUS",
    "PreprocessConfig",
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
    # Here, not above: reading the settings' defaults must not load TensorFlow.
    from .batch import batch_preprocess

    config.validate()
    return batch_preprocess(config)
