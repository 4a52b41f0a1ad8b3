"""Reads the EXIF orientation from a TIFF block.

Tag 0x0112 of the first directory says how the stored rows and columns were turned: 1 upright,
2 mirrored, 3 upside down and mirrored, 4 upside down, and 5 to 8 the same with rows and columns
exchanged (CIPA DC-008, "Orientation").
"""

from __future__ import annotations

import tensorflow as tf

from featurewire_exporter.preprocess.octets import big, is_in, little, starts_with, window

UPRIGHT = 1

_TAG = 0x0112
_SHORTS = (3, 8)
"""Types of two bytes, SHORT and SSHORT. The standard asks for SHORT."""
_LONGS = (4, 9)
"""Types of four bytes, LONG and SLONG, which some writers use and most readers accept."""

# A directory is sorted by tag, and few tags come before this one.
_ENTRIES = 64


def read_orientation(data: tf.Tensor, at: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """int32 [N] from 1 to 8, of the TIFF blocks of `length` bytes at `at`, int64 [N].

    1 if `at` is 0, and if a block is broken or has no orientation.
    """

    def read() -> tf.Tensor:
        start = window(data, at, 8)
        swapped = starts_with(start, b"II*\0")
        known = (at > 0) & (swapped | starts_with(start, b"MM\0*"))
        offset = tf.where(swapped, little(start[:, 4:]), big(start[:, 4:]))
        # Bytes after its end belong to another part of the file.
        offset = tf.minimum(offset, tf.maximum(length, 0))
        table = window(data, at + offset, 2 + 12 * _ENTRIES)
        count = tf.where(swapped, little(table[:, :2]), big(table[:, :2]))
        count = tf.minimum(count, (length - offset - 2) // 12)
        entries = tf.reshape(table[:, 2:], [-1, _ENTRIES, 12])

        def field(column: int, size: int = 2) -> tf.Tensor:
            octets = entries[:, :, column : column + size]
            return tf.where(swapped[:, tf.newaxis], little(octets), big(octets))

        kind = field(2)
        long = is_in(kind, *_LONGS)
        value = tf.where(long, field(8, 4), field(8))
        there = known[:, tf.newaxis] & (tf.range(_ENTRIES, dtype=tf.int64) < count[:, tf.newaxis])
        there &= tf.equal(field(0), _TAG) & (long | is_in(kind, *_SHORTS)) & (value <= 8)
        found = tf.reduce_max(tf.where(there, value, 0), 1)
        return tf.cast(tf.maximum(found, UPRIGHT), tf.int32)

    return tf.cond(tf.reduce_any(at > 0), read, lambda: tf.ones_like(at, tf.int32))


def exchanges_sides(orientation: tf.Tensor) -> tf.Tensor:
    """bool: whether the stored rows are the upright image's columns."""
    return orientation >= 5


def reversed_sides(orientation: tf.Tensor) -> tf.Tensor:
    """bool [N, 2]: whether rows and columns, exchanged or not, have to run the other way."""
    return tf.stack([is_in(orientation, 3, 4, 7, 8), is_in(orientation, 2, 3, 6, 7)], -1)
