"""BMP: 1, 4 and 8 bits with a palette, 24 and 32 bits, uncompressed, in either direction.

Decoded here from its plain bytes: TensorFlow's op takes palette indices for grey, knows fewer
depths and refuses a file with a byte after its pixels.
"""

from __future__ import annotations

import tensorflow as tf

from featurewire_exporter.preprocess.header import Header
from featurewire_exporter.preprocess.octets import is_in, little, starts_with, window
from featurewire_exporter.preprocess.orientation import UPRIGHT

MAGIC = b"BM"

_COLOURS, _INDICES = range(2)

_UNCOMPRESSED, _MASKS = 0, 3
_USUAL_MASKS = b"\0\0\xff\0\0\xff\0\0\xff\0\0\0"


def looks_like(head: tf.Tensor) -> tf.Tensor:
    """bool [N]: two letters are little to go by, so the size of the second header counts too."""
    return starts_with(head, MAGIC) & is_in(
        little(head[:, 14:18]), 12, 16, 40, 52, 56, 64, 108, 124
    )


def read(head: tf.Tensor) -> Header:
    """The headers of BMP files; the sides of an unsupported kind are 0."""
    bits, compression = little(head[:, 28:30]), little(head[:, 30:34])
    masks = tf.equal(compression, _MASKS) & tf.equal(bits, 32)
    masks &= starts_with(head[:, 54:], _USUAL_MASKS)
    plain = tf.equal(compression, _UNCOMPRESSED) & is_in(bits, 1, 4, 8, 24, 32)
    there = tf.cast((little(head[:, 14:18]) >= 40) & (plain | masks), tf.int64)
    height, width = little(head[:, 22:26]), little(head[:, 18:22]) * there
    # A negative height says that the rows run from top to bottom.
    upwards = height < 1 << 31
    height = tf.minimum(height, (1 << 32) - height) * there
    # Rows are filled up to four bytes.
    pitch = (width * bits + 31) // 32 * 4
    extra = [little(head[:, 10:14]), pitch, bits, tf.cast(upwards, tf.int64)]
    return Header(
        height,
        width,
        tf.fill(tf.shape(bits), UPRIGHT),
        tf.where(bits <= 8, _INDICES, _COLOURS),
        tf.cast(tf.minimum(tf.stack(extra, 1), (1 << 31) - 1), tf.int32),
    )


def decode(data: tf.Tensor, shape: tf.Tensor, extra: tf.Tensor) -> tf.Tensor:
    """uint8 `shape`, of one file with colours for pixels. Fails where it is cut off."""
    height, width, _ = tf.unstack(shape)
    _, _, bits, _ = tf.unstack(extra)
    channels = bits // 8
    used = _rows(data, height, extra)[:, : width * channels]
    # Blue, green, red, and perhaps a fourth.
    return tf.reshape(used, tf.stack([height, width, channels]))[:, :, 2::-1]


def decode_indexed(data: tf.Tensor, shape: tf.Tensor, extra: tf.Tensor) -> tf.Tensor:
    """uint8 `shape`, of one file whose pixels are indices into its palette."""
    height, width, _ = tf.unstack(shape)
    _, _, bits, _ = tf.unstack(extra)
    # The leftmost pixel of a byte has its highest bits.
    shifts = tf.range(8 - bits, -1, -bits)
    indices = tf.bitwise.right_shift(tf.range(256)[:, tf.newaxis], shifts)
    indices = tf.bitwise.bitwise_and(indices, tf.bitwise.left_shift(1, bits) - 1)
    start = little(window(data[tf.newaxis], 14, 4)) + 14
    palette = tf.reshape(window(data[tf.newaxis], start, 1024), [256, 4])[:, 2::-1]
    # Each byte is looked up once, for all of its pixels: an index for each would take more memory
    # than the pixels.
    colours = tf.gather(tf.cast(palette, tf.uint8), indices)
    per_byte = 8 // bits
    used = _rows(data, height, extra)[:, : (width + per_byte - 1) // per_byte]
    pixels = tf.gather(colours, tf.cast(used, tf.int32))
    return tf.reshape(pixels, tf.stack([height, -1, 3]))[:, :width]


def _rows(data: tf.Tensor, height: tf.Tensor, extra: tf.Tensor) -> tf.Tensor:
    """The bytes of the pixels, uint8 [height, pitch], from top to bottom."""
    start, pitch, _, upwards = tf.unstack(tf.cast(extra, tf.int64))
    size = pitch * tf.cast(height, tf.int64)
    octets = tf.io.decode_raw(tf.strings.substr(data, start, size), tf.uint8)
    rows = tf.reshape(octets, tf.stack([tf.cast(height, tf.int64), pitch]))
    return tf.raw_ops.Reverse(tensor=rows, dims=tf.stack([upwards > 0, False]))
