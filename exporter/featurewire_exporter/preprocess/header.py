"""Facts about images from their first bytes, before any pixel is decoded."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

HEAD_BYTES = 72
"""How many first bytes, padded with zeros, every format's reader is given: int32 [N, 72]."""


class Header(NamedTuple):
    """Vectors [N]. Sides are not positive where they cannot be right."""

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
    """int64 [N]: how often the decoder goes over all pixels; of JPEG files."""

    thirds: tf.Tensor | None = None
    """int64 [N]: how many thirds of a pixel each pixel counts as, by what its decoding takes. None
    is 3 everywhere."""


def no_extra(like: tf.Tensor) -> tf.Tensor:
    """The `extra` of a format that needs nothing, of as many files as `like` [N] has."""
    return tf.zeros(tf.stack([tf.size(like), 4]), tf.int32)
