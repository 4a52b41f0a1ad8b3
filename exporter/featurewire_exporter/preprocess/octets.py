"""Reads bytes of a batch of strings as numbers, inside a graph.

Headers are read for a whole batch at once, so the first axis of every tensor here is the image.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def window(data: tf.Tensor, at: tf.Tensor | int, count: int) -> tf.Tensor:
    """int32 [N, count]: the bytes of each string from `at` [N] on, padded with zeros."""
    length = tf.cast(tf.strings.length(data), tf.int64)
    at = tf.maximum(tf.minimum(tf.cast(at, tf.int64), length), 0)
    part = tf.strings.substr(data, at, tf.fill(tf.shape(length), tf.constant(count, tf.int64)))
    return tf.cast(tf.io.decode_raw(part, tf.uint8, fixed_length=count), tf.int32)


def big(octets: tf.Tensor) -> tf.Tensor:
    """int64 [...]: unsigned bytes [..., count], the most significant first."""
    return _number(octets, range(octets.shape[-1] - 1, -1, -1))


def little(octets: tf.Tensor) -> tf.Tensor:
    """int64 [...]: unsigned bytes [..., count], the least significant first."""
    return _number(octets, range(octets.shape[-1]))


def _number(octets: tf.Tensor, places: range) -> tf.Tensor:
    weights = tf.constant([1 << (8 * place) for place in places], tf.int64)
    return tf.reduce_sum(tf.cast(octets, tf.int64) * weights, -1)


def starts_with(octets: tf.Tensor, text: bytes) -> tf.Tensor:
    """bool [...]: whether the bytes [..., count] start with `text`."""
    return tf.reduce_all(tf.equal(octets[..., : len(text)], list(text)), -1)


def is_in(octets: tf.Tensor, *values: int) -> tf.Tensor:
    """bool, of the same shape: whether each number is one of `values`."""
    return tf.reduce_any(tf.equal(octets[..., tf.newaxis], tf.constant(values, octets.dtype)), -1)


Step = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor, tuple[tf.Tensor, ...]]]


def find_marks(
    data: tf.Tensor,
    start: int,
    active: tf.Tensor,
    *,
    width: int,
    limit: int,
    marks: int,
    step: Step,
) -> tuple[tf.Tensor, ...]:
    """Step through the segments of each string where `active` [N] is true, and find marks.

    `step` gets `width` bytes of each string, int32 [N, width], and their offset, int64 [N]. It
    returns the next offset, which must not be smaller, whether to continue, and `marks` tensors,
    bool [N], which mark this offset. The result is one int64 [N] per mark: the first offset with
    that mark, 0 without one. Stops after `limit` steps, and at the end of a string.
    """
    length = tf.cast(tf.strings.length(data, "BYTE"), tf.int64)
    place = tf.fill(tf.shape(length), tf.constant(start, tf.int64))
    found = [tf.zeros_like(place)] * marks
    size = tf.fill(tf.shape(length), tf.constant(width, tf.int64))

    def wanted(count: tf.Tensor, _place: tf.Tensor, active: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return tf.reduce_any(active) & (count < limit)

    def advance(
        count: tf.Tensor, place: tf.Tensor, active: tf.Tensor, *found: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        # The same as `window`, with fewer operations: this is most of the cost of a header.
        part = tf.strings.substr(data, tf.minimum(place, length), size)
        octets = tf.cast(tf.io.decode_raw(part, tf.uint8, fixed_length=width), tf.int32)
        following, more, marked = step(octets, place)
        found = tuple(
            tf.where(active & mark & tf.equal(old, 0), place, old)
            for mark, old in zip(marked, found, strict=True)
        )
        active &= more & (following < length)
        return count + 1, following, active, *found

    _, _, _, *found = tf.while_loop(
        wanted, advance, (tf.constant(0), place, active, *found), parallel_iterations=1
    )
    return tuple(found)
