"""JPEG: size and orientation from its segments, and a decode at the scale that is needed.

A JPEG decoder can leave out the high frequencies of each 8 x 8 block and so give the image at
1/2, 1/4 or 1/8 for less work. Each of its pixels is then the mean of the block of pixels that a
full decode would have given, which is what `resize` relies on.
"""

from __future__ import annotations

import tensorflow as tf

from .config import LEVEL_SHIFT
from .header import Header, no_extra
from .octets import among, big, spell, walk, window
from .orientation import UPRIGHT, read_orientation

MAGIC = b"\xff\xd8\xff"

# Far more segments than a camera writes before the image.
_MAX_STEPS = 128

# Of all 0xC0 to 0xCF, these do not begin a frame.
_NOT_FRAMES = (0xC4, 0xC8, 0xCC)

# What a step down of Y, and one of Cb and Cr, takes from red, green and blue (ITU-R BT.601).
_STEPS = ((1.0, 1.0, 1.0), (1.402, -0.344136 - 0.714136, 1.772))


def read(data: tf.Tensor, mine: tf.Tensor, *, exif: bool) -> Header:
    """The headers of the JPEG files, which `mine` [N] marks."""

    def step(
        octets: tf.Tensor, at: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tuple[tf.Tensor, ...]]:
        first, code = octets[:, 0], octets[:, 1]
        starts = tf.equal(first, 0xFF)
        marker = starts & ~among(code, 0, 0xFF)
        frame = marker & (code >= 0xC0) & (code <= 0xCF) & ~among(code, *_NOT_FRAMES)
        tagged = marker & tf.equal(code, 0xE1) & spell(octets[:, 4:], b"Exif\0\0")
        # Markers without a length, and the scan, have no place before the frame.
        ends = frame | among(code, 0x01, 0xC8) | ((code >= 0xD0) & (code <= 0xDA))
        length = big(octets[:, 2:4])
        more = ~marker | (~ends & (length >= 2))
        # As libjpeg does: fill bytes and stray bytes before a marker are passed over.
        passed = tf.cast(tf.where(tf.equal(code, 0xFF), 1, 2), tf.int64)
        astray = tf.where(starts, passed, _until_marker(octets))
        return at + tf.where(marker, 2 + length, astray), more, (frame, tagged)

    frame, tagged = walk(data, 2, mine, width=10, limit=_MAX_STEPS, marks=2, step=step)
    sizes = window(data, frame + 5, 5)
    there = tf.cast(frame > 0, tf.int64)
    orientation = tf.fill(tf.shape(mine), UPRIGHT)
    if exif:
        # Marker and length take 4 bytes and the name 6; the length counts itself.
        length = big(window(data, tagged + 2, 2)) - 8
        orientation = read_orientation(data, tf.where(tagged > 0, tagged + 10, 0), length)
    components = sizes[:, 4:]
    # What CMYK becomes is left as it is.
    shifted = tf.cast(components[:, :, tf.newaxis] < 4, tf.float32)
    shift = shifted * (LEVEL_SHIFT * tf.constant(_STEPS))
    return Header(
        big(sizes[:, 0:2]) * there,
        big(sizes[:, 2:4]) * there,
        orientation,
        tf.zeros_like(orientation),
        tf.concat([components, no_extra(components)[:, 1:]], 1),
        shift,
    )


def _until_marker(octets: tf.Tensor) -> tf.Tensor:
    """int64 [N]: how many of the bytes come before the first 0xFF."""
    before = tf.math.cumprod(tf.cast(tf.not_equal(octets, 0xFF), tf.int64), 1)
    return tf.maximum(tf.reduce_sum(before, 1), 1)


def decode(data: tf.Tensor, ratio: int, shape: tf.Tensor) -> tf.Tensor:
    """uint8 [ceil(h / ratio), ceil(w / ratio), 3], of one file; `ratio` is 1, 2, 4 or 8.

    Fails unless the decoder reads the same `shape`, int32 [3], from the header as was read here.
    """
    agrees = tf.reduce_all(tf.equal(tf.io.extract_jpeg_shape(data), shape))
    with tf.control_dependencies([tf.raw_ops.Assert(condition=agrees, data=[shape])]):
        # At full size, the decode that TensorFlow's users know; at others, all exact alike.
        method = "" if ratio == 1 else "INTEGER_ACCURATE"
        return tf.io.decode_jpeg(data, channels=3, ratio=ratio, dct_method=method)
