"""GIF: only the first frame is read and decoded.

TensorFlow's decoder unpacks every frame of a file onto the full canvas, even if only one is wanted,
so a small file with many frames is a bomb. So the file is truncated after its first frame.
"""

from __future__ import annotations

import tensorflow as tf

from featurewire_exporter.preprocess.header import Header
from featurewire_exporter.preprocess.octets import little, starts_with, window
from featurewire_exporter.preprocess.orientation import UPRIGHT

_BLOCK, _EXTENSION, _FRAME, _DONE, _BAD = range(5)

# A step takes one block, or up to _RUN data blocks of equal length (encoders fill them all but
# the last). Both bounds keep the work small for a file made to have as many steps as it can.
_MAX_STEPS = 4096
_RUN = 512


def looks_like(head: tf.Tensor) -> tf.Tensor:
    """bool [N]."""
    return starts_with(head, b"GIF87a") | starts_with(head, b"GIF89a")


def read(data: tf.Tensor, head: tf.Tensor, mine: tf.Tensor) -> Header:
    """The headers of the GIF files, which `mine` [N] marks.

    The sides are the canvas's, or 0 if the first frame is truncated or extends beyond it.
    """
    rows = tf.where(mine)
    spans = tf.map_fn(
        lambda row: _first_frame(data[row[0]]),
        rows,
        fn_output_signature=tf.TensorSpec([2], tf.int32),
    )
    span = tf.scatter_nd(rows, spans, tf.stack([tf.size(mine, tf.int64), 2]))
    place = window(data, span[:, 0] + 1, 8)
    left, top, columns, lines = (little(place[:, at : at + 2]) for at in (0, 2, 4, 6))
    height, width = little(head[:, 8:10]), little(head[:, 6:8])
    fits = (left + columns <= width) & (top + lines <= height) & (columns > 0) & (lines > 0)
    there = tf.cast(fits & (span[:, 1] > 0), tf.int64)
    upright = tf.fill(tf.shape(mine), UPRIGHT)
    extra = tf.concat([span, tf.cast(tf.stack([top, left], 1), tf.int32)], 1)
    return Header(height * there, width * there, upright, tf.zeros_like(upright), extra)


def decode(data: tf.Tensor, shape: tf.Tensor, extra: tf.Tensor) -> tf.Tensor:
    """uint8 `shape`, of one file: the first frame on a black canvas. Fails where it is broken."""
    start, end, top, left = tf.unstack(extra)
    # Move it to 0, 0, because the decoder would take the frame's size for the canvas's.
    before = tf.strings.substr(data, 0, start + 1)
    after = tf.strings.substr(data, start + 5, end - start - 5)
    frame = tf.io.decode_gif(tf.strings.join([before, b"\0\0\0\0", after, b";"]))[0]
    first = tf.stack([top, left, 0])
    return tf.pad(frame, tf.stack([first, shape - tf.shape(frame) - first], 1))


def _first_frame(data: tf.Tensor) -> tf.Tensor:
    """int32 [2]: where the first frame's descriptor starts and where its data end, of one file.

    0 and 0 if the file ends early or has parts that a GIF does not have.
    """
    octets = tf.io.decode_raw(data, tf.uint8)
    # No byte after the last one is read, so nothing here can fail.
    last = tf.size(octets) - 1

    def wanted(step: tf.Tensor, at: tf.Tensor, _start: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        return (state < _DONE) & (step < _MAX_STEPS) & (at <= last)

    def advance(
        step: tf.Tensor, at: tf.Tensor, start: tf.Tensor, state: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        after, start, state = tf.cond(
            tf.equal(state, _BLOCK),
            lambda: _block(octets, at, start, last),
            lambda: _data_blocks(octets, at, start, state),
        )
        return step + 1, after, start, state

    at = 13 + _colours(octets[tf.minimum(10, last)])
    start, state = (tf.constant(value) for value in (0, _BLOCK))
    _, end, start, state = tf.while_loop(wanted, advance, (tf.constant(0), at, start, state))
    return tf.stack([start, end]) * tf.cast(tf.equal(state, _DONE), tf.int32)


def _block(
    octets: tf.Tensor, at: tf.Tensor, start: tf.Tensor, last: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    extension, frame = tf.equal(octets[at], 0x21), tf.equal(octets[at], 0x2C)
    # An extension is its code and its kind; a frame its descriptor, colours and code size.
    after = tf.where(frame, at + 11 + _colours(octets[tf.minimum(at + 9, last)]), at + 2)
    state = tf.where(extension, _EXTENSION, tf.where(frame, _FRAME, _BAD))
    return after, tf.where(frame, at, start), state


def _data_blocks(
    octets: tf.Tensor, at: tf.Tensor, start: tf.Tensor, state: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    size = octets[at]
    stride = tf.cast(size, tf.int32) + 1
    sizes = tf.ensure_shape(octets[at : at + stride * _RUN : stride], [None])
    equal = tf.reduce_sum(tf.math.cumprod(tf.cast(tf.equal(sizes, size), tf.int32)))
    ends = tf.equal(size, 0)
    after = tf.where(ends, at + 1, at + equal * stride)
    following = tf.where(tf.equal(state, _EXTENSION), _BLOCK, _DONE)
    return after, start, tf.where(ends, following, state)


def _colours(flags: tf.Tensor) -> tf.Tensor:
    """int32: bytes of the colour table that a screen's or a frame's flags announce."""
    flags = tf.cast(flags, tf.int32)
    size = tf.bitwise.left_shift(6, tf.bitwise.bitwise_and(flags, 7))
    return tf.where(flags >= 0x80, size, 0)
