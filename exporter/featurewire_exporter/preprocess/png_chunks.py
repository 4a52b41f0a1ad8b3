"""A PNG with only the chunks that its pixels depend on.

The decoder reads every chunk: it unpacks texts and colour profiles, a thousand bytes from each
of the file's, and takes as much memory as a chunk claims to have. So it is given none of them.
"""

from __future__ import annotations

import tensorflow as tf

from .octets import among, big

MAGIC = b"\x89PNG\r\n\x1a\n"

_HEADER_END = len(MAGIC) + 25
_END = b"\0\0\0\0IEND\xaeB`\x82"

# A step takes up to _RUN chunks of equal length: encoders fill all of pixels but the last.
_MAX_STEPS = 4096
_RUN = 64

_PALETTE, _PIXELS, _LAST = (int.from_bytes(name, "big") for name in (b"PLTE", b"IDAT", b"IEND"))
_MAY_BE_PASSED = 1 << 29
"""The bit that the name of a chunk has where a decoder may pass over it."""


def needed(data: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """string: one file with its header, its palette and its pixels, and nothing else.

    Fails where a chunk reaches beyond the file's end, where one is unknown that may not be passed
    over, where there are more than can be walked over, and where they are larger than the pixels
    of `shape`, int32 [3], can need: what is left over would be unpacked all the same.
    """
    palette, behind_palette, pixels, behind_pixels = _places(data)
    height, width, _ = tf.unstack(tf.cast(shape, tf.int64))
    # Of 8 bytes at most, with a chunk for every row that is not compressed, interlaced or not.
    most = 16 * height * width + 64 * (height + width) + (1 << 16)
    fits = behind_pixels - pixels <= most
    with tf.control_dependencies([tf.raw_ops.Assert(condition=fits, data=[most])]):
        pixels = tf.identity(pixels)
    return tf.strings.join(
        [
            tf.strings.substr(data, 0, _HEADER_END),
            tf.strings.substr(data, palette, behind_palette - palette),
            tf.strings.substr(data, pixels, behind_pixels - pixels),
            _END,
        ]
    )


def _places(data: tf.Tensor) -> list[tf.Tensor]:
    """Where the palette starts and ends, and the pixels, int64; 0 and 0 where there are none."""
    octets = tf.io.decode_raw(data, tf.uint8)
    length = tf.size(octets, out_type=tf.int64)
    several = tf.range(_RUN, dtype=tf.int64)[:, tf.newaxis]
    eight = tf.range(8, dtype=tf.int64)

    def heads(at: tf.Tensor) -> tf.Tensor:
        return tf.gather(octets, tf.minimum(at + eight, length - 1))

    def wanted(step: tf.Tensor, at: tf.Tensor, kind: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return (step < _MAX_STEPS) & (at < length) & tf.not_equal(kind, _LAST)

    def advance(
        step: tf.Tensor, at: tf.Tensor, kind: tf.Tensor, *found: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        size, kind = tf.unstack(big(tf.reshape(heads(at), [2, 4])))
        stride = size + 12
        run = heads(at + several * stride)
        run = tf.reduce_all(tf.equal(run, run[:1]), 1)
        behind = at + stride * tf.reduce_sum(tf.math.cumprod(tf.cast(run, tf.int64)))
        palette, behind_palette, pixels, behind_pixels = found
        is_palette = tf.equal(kind, _PALETTE) & tf.equal(palette + pixels, 0)
        palette = tf.where(is_palette, at, palette)
        behind_palette = tf.where(is_palette, at + stride, behind_palette)
        # Chunks of pixels follow each other; others than that are not read.
        is_pixels = tf.equal(kind, _PIXELS) & (tf.equal(pixels, 0) | tf.equal(behind_pixels, at))
        pixels = tf.where(is_pixels & tf.equal(pixels, 0), at, pixels)
        behind_pixels = tf.where(is_pixels, behind, behind_pixels)
        known = among(kind, _PALETTE, _PIXELS, _LAST) | (
            kind % (2 * _MAY_BE_PASSED) >= _MAY_BE_PASSED
        )
        return (
            step + 1,
            tf.where(known, behind, length + 1),
            kind,
            palette,
            behind_palette,
            pixels,
            behind_pixels,
        )

    nowhere = tf.constant(0, tf.int64)
    state = (tf.constant(0), nowhere + _HEADER_END, *[nowhere] * 5)
    _, at, kind, *found = tf.while_loop(wanted, advance, state)
    whole = tf.equal(kind, _LAST) & (at <= length)
    with tf.control_dependencies([tf.raw_ops.Assert(condition=whole, data=[at])]):
        return [tf.identity(place) for place in found]
