"""Reduces a PNG to the chunks that its pixels depend on.

The decoder reads every chunk: it unpacks texts and colour profiles to a thousand times their size,
and allocates as much memory as a chunk claims to need. So it does not get these chunks.
"""

from __future__ import annotations

import tensorflow as tf

from featurewire_exporter.preprocess.octets import big, is_in

MAGIC = b"\x89PNG\r\n\x1a\n"

_HEADER_END = len(MAGIC) + 25
_DEPTH = len(MAGIC) + 16
_CHANNELS = (1, 1, 3, 1, 2, 1, 4, 1)
"""Numbers per pixel by colour type: grey, true colour, palette, with alpha."""
_END = b"\0\0\0\0IEND\xaeB`\x82"

# A step takes up to _RUN chunks of equal length: encoders fill all of pixels but the last.
_MAX_STEPS = 4096
_RUN = 64

_PALETTE, _PIXELS, _LAST = (int.from_bytes(name, "big") for name in (b"PLTE", b"IDAT", b"IEND"))
_MAY_BE_PASSED = 1 << 29
"""The bit in the name of a chunk that a decoder may skip."""


def needed(data: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """string: one file with its header, its palette and its pixels, and nothing else.

    Fails for a chunk that extends beyond the file's end, for an unknown critical chunk, for more
    chunks than can be visited, and for more packed data than the pixels of `shape`, int32 [3], can
    need, because the decoder would unpack the rest as well.
    """
    palette, behind_palette, pixels, behind_pixels, packed = _places(data)
    most = _most_packed(data, shape)
    fits = packed <= most
    with tf.control_dependencies([tf.raw_ops.Assert(condition=fits, data=[most])]):
        pixels = tf.identity(pixels)
    kept = _HEADER_END + (behind_palette - palette) + (behind_pixels - pixels) + len(_END)

    def rebuilt() -> tf.Tensor:
        parts = [(0, _HEADER_END), (palette, behind_palette), (pixels, behind_pixels)]
        return tf.strings.join(
            [*(tf.strings.substr(data, start, end - start) for start, end in parts), _END]
        )

    # Most files have only these chunks; then nothing is copied.
    alone = tf.equal(kept, tf.cast(tf.strings.length(data), tf.int64))
    return tf.cond(alone, lambda: tf.identity(data), rebuilt)


def _most_packed(data: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """int64: the maximum number of bytes of the packed pixels of one file.

    Packing enlarges data by at most an eighth (every byte in 9 bits) and a few bytes per
    block. There may be a block for every row, and more rows where they are interlaced.
    """
    height, width, _ = tf.unstack(tf.cast(shape, tf.int64))
    depth, colours = tf.unstack(tf.io.decode_raw(tf.strings.substr(data, _DEPTH, 2), tf.uint8), 2)
    bits = tf.cast(depth, tf.int64) * tf.gather(
        tf.constant(_CHANNELS, tf.int64), tf.cast(colours % 8, tf.int32)
    )
    raw = height * (1 + (width * bits + 7) // 8)
    return raw + raw // 4 + 64 * (height + width) + (1 << 16)


def _places(data: tf.Tensor) -> list[tf.Tensor]:
    """int64: start and end of the palette, start and end of the pixels (0 and 0 without any), and
    the number of bytes in the chunks of pixels."""
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
        palette, behind_palette, pixels, behind_pixels, packed = found
        is_palette = tf.equal(kind, _PALETTE) & tf.equal(palette + pixels, 0)
        palette = tf.where(is_palette, at, palette)
        behind_palette = tf.where(is_palette, at + stride, behind_palette)
        # Chunks of pixels follow each other; others than that are not read.
        is_pixels = tf.equal(kind, _PIXELS) & (tf.equal(pixels, 0) | tf.equal(behind_pixels, at))
        pixels = tf.where(is_pixels & tf.equal(pixels, 0), at, pixels)
        behind_pixels = tf.where(is_pixels, behind, behind_pixels)
        inside = (behind - at) // stride * size
        packed += tf.where(is_pixels, inside, 0)
        known = is_in(kind, _PALETTE, _PIXELS, _LAST) | (
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
            packed,
        )

    nowhere = tf.constant(0, tf.int64)
    state = (tf.constant(0), nowhere + _HEADER_END, *[nowhere] * 6)
    _, at, kind, *found = tf.while_loop(wanted, advance, state)
    whole = tf.equal(kind, _LAST) & (at <= length)
    with tf.control_dependencies([tf.raw_ops.Assert(condition=whole, data=[at])]):
        return [tf.identity(place) for place in found]
