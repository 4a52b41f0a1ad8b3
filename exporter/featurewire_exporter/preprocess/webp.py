"""WebP, in versions that were exported with it: still images, lossy, lossless and extended."""

from __future__ import annotations

import tensorflow as tf

from featurewire_exporter.preprocess.header import Header, no_extra
from featurewire_exporter.preprocess.octets import find_marks, little, starts_with, window
from featurewire_exporter.preprocess.orientation import UPRIGHT, read_orientation

_MAX_CHUNKS = 64
_ANIMATED = 0x02
_ALPHA = 0x10
_FOURTEEN_BITS = 1 << 14


def looks_like(head: tf.Tensor) -> tf.Tensor:
    """bool [N]: a RIFF container of WebP."""
    return starts_with(head, b"RIFF") & starts_with(head[:, 8:], b"WEBP")


def read(data: tf.Tensor, head: tf.Tensor, mine: tf.Tensor, *, exif: bool) -> Header:
    """The headers of the WebP files, which `mine` [N] marks; sides of 0 where one is animated."""
    kind = head[:, 12:16]
    extended = starts_with(kind, b"VP8X")
    packed = little(head[:, 21:25])

    def side(lossy: int, lossless: int, canvas: int) -> tf.Tensor:
        value = little(head[:, lossy : lossy + 2]) % _FOURTEEN_BITS
        value = tf.where(starts_with(kind, b"VP8L"), packed // lossless % _FOURTEEN_BITS + 1, value)
        value = tf.where(extended, little(head[:, canvas : canvas + 3]) + 1, value)
        return value * still

    animated = extended & tf.equal(tf.bitwise.bitwise_and(head[:, 20], _ANIMATED), _ANIMATED)
    known = extended | starts_with(kind, b"VP8 ") | starts_with(kind, b"VP8L")
    still = tf.cast(known & ~animated, tf.int64)
    orientation = tf.fill(tf.shape(mine), UPRIGHT)
    if exif:
        orientation = _orientation(data, mine & extended)
    height = side(28, _FOURTEEN_BITS, 27)
    width = side(26, 1, 24)
    alpha = extended & (tf.bitwise.bitwise_and(head[:, 20], _ALPHA) > 0)
    alpha |= starts_with(kind, b"VP8L") & tf.equal(packed // _FOURTEEN_BITS**2 % 2, 1)
    # The decoder then gives four numbers per pixel.
    thirds = tf.where(alpha, tf.constant(4, tf.int64), 3)
    decoder = tf.zeros_like(orientation)
    return Header(height, width, orientation, decoder, no_extra(mine), thirds=thirds)


def _orientation(data: tf.Tensor, extended: tf.Tensor) -> tf.Tensor:
    def step(
        octets: tf.Tensor, at: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tuple[tf.Tensor, ...]]:
        tagged = starts_with(octets, b"EXIF")
        size = little(octets[:, 4:])
        return at + 8 + size + size % 2, ~tagged, (tagged,)

    (tagged,) = find_marks(data, 12, extended, width=8, limit=_MAX_CHUNKS, marks=1, step=step)
    octets = window(data, tagged, 14)
    # Some writers keep the name that the block has inside a JPEG.
    name = tf.where(starts_with(octets[:, 8:], b"Exif\0\0"), tf.constant(6, tf.int64), 0)
    at = tf.where(tagged > 0, tagged + 8 + name, 0)
    return read_orientation(data, at, little(octets[:, 4:8]) - name)


def decode(data: tf.Tensor) -> tf.Tensor:
    """uint8 [h, w, 3], of one file; alpha is dropped."""
    # The operation accepts only the file's own number of channels, and its first axis is frames.
    return tf.raw_ops.DecodeWebP(contents=data, channels=0, dtype=tf.uint8)[0, :, :, :3]
