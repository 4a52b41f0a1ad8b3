"""Facts about images from their first bytes, before any pixel is decoded."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

HEAD_BYTES = 72
"""Number of first bytes that each format's reader gets, padded with zeros: int32 [N, 72]."""


class Header(NamedTuple):
    """Vectors [N]. Impossible sides are 0 or negative."""

    height: tf.Tensor
    """int64, pixels, as stored: before any orientation is applied."""

    width: tf.Tensor
    """int64, pixels."""

    orientation: tf.Tensor
    """int32, from 1 (upright) to 8."""

    decoder: tf.Tensor
    """int32: the index of one of the format's own decoders."""

    extra: tf.Tensor
    """int32 [N, 4]: further arguments for the format's own decoders."""

    level_shift: tf.Tensor | None = None
    """float32 [N, 2, 3]: levels of red, green and blue that only a full decode subtracts: in all
    pixels, and in addition in coloured ones."""

    scans: tf.Tensor | None = None
    """int64 [N]: the number of passes of the decoder over all pixels of a JPEG."""

    thirds: tf.Tensor | None = None
    """int64 [N]: the decoding cost of a pixel, in thirds of a usual one. None is 3 everywhere."""


def no_extra(like: tf.Tensor) -> tf.Tensor:
    """The `extra` of a format that needs nothing, of as many files as `like` [N] has."""
    return tf.zeros(tf.stack([tf.size(like), 4]), tf.int32)
