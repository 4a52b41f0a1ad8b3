"""PNG: size from its first chunk, orientation from an `eXIf` chunk before the pixels."""

from __future__ import annotations

import tensorflow as tf

from featurewire_exporter.preprocess import png_chunks
from featurewire_exporter.preprocess.header import Header, no_extra
from featurewire_exporter.preprocess.octets import big, find_marks, starts_with, window
from featurewire_exporter.preprocess.orientation import UPRIGHT, read_orientation

MAGIC = png_chunks.MAGIC

_MAX_CHUNKS = 64


def read(data: tf.Tensor, head: tf.Tensor, mine: tf.Tensor, *, exif: bool) -> Header:
    """The headers of the PNG files, which `mine` [N] marks."""

    def step(
        octets: tf.Tensor, at: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tuple[tf.Tensor, ...]]:
        tagged = starts_with(octets[:, 4:], b"eXIf")
        pixels = starts_with(octets[:, 4:], b"IDAT")
        return at + 12 + big(octets[:, :4]), ~(tagged | pixels), (tagged,)

    orientation = tf.fill(tf.shape(mine), UPRIGHT)
    if exif:
        (tagged,) = find_marks(
            data, len(MAGIC), mine, width=8, limit=_MAX_CHUNKS, marks=1, step=step
        )
        length = big(window(data, tagged, 4))
        orientation = read_orientation(data, tf.where(tagged > 0, tagged + 8, 0), length)
    there = tf.cast(starts_with(head[:, 12:], b"IHDR"), tf.int64)
    width, height = big(head[:, 16:20]) * there, big(head[:, 20:24]) * there
    decoder = tf.zeros_like(orientation)
    # 16 bits are twice as many bytes to unpack and to unfilter.
    thirds = tf.where(tf.equal(head[:, 24], 16), tf.constant(6, tf.int64), 3)
    return Header(height, width, orientation, decoder, no_extra(mine), thirds=thirds)


def decode(data: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """uint8 `shape`, of one file: 16 bits become 8, palettes and grey RGB, alpha is dropped."""
    return tf.io.decode_png(png_chunks.needed(data, shape), channels=3)
