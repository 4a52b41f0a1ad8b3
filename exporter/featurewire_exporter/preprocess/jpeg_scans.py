"""Counts the scans of a JPEG, and finds whether the last one is complete.

Every scan is work for all pixels, even if it has few bytes, so a small file with many scans is a
bomb. If a truncated file has an end marker, a decoder fills the missing part with grey and reports
no error.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from featurewire_exporter.preprocess.octets import window

MAX_SCANS_SEARCHED = 1024
"""Maximum number of scans to count, because a file with more is not decoded."""

FRAME_BYTES = 22
"""Length of a frame's header up to the fourth component: int32 [N, 22]."""

_PROGRESSIVE = 0xC2
_SCAN = b"\xff\xda\0"
_END = b"\xff\xd9"


def read(
    data: tf.Tensor, head: tf.Tensor, frame: tf.Tensor, scan: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """(scans int64, whole bool), both [N], of files with a frame and a first scan at these places.

    `head` has the frames' first bytes. `whole` is false for a file whose scans together leave out
    a component, a frequency or the last bit of one. Scans are counted up to MAX_SCANS_SEARCHED.
    """
    components = head[:, 9]
    inside = window(data, scan + 4, 1)[:, 0]
    several = tf.equal(head[:, 1], _PROGRESSIVE) | (inside < components)
    several &= (frame > 0) & (scan > 0)
    one = tf.ones_like(frame), tf.fill(tf.shape(several), True)
    return tf.cond(tf.reduce_any(several), lambda: _search(data, head, scan, several), lambda: one)


def _search(
    data: tf.Tensor, head: tf.Tensor, scan: tf.Tensor, several: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The same as `read`, if `several` of the files have more than one scan."""
    count = tf.size(several, out_type=tf.int64)
    files = tf.where(several)[:, 0]
    coded = tf.gather(data, files)
    start = tf.gather(scan, files)
    coded = tf.strings.substr(coded, start, tf.cast(tf.strings.length(coded), tf.int64) - start)
    # Coded pixels contain no marker, and elsewhere these three bytes almost never occur.
    parts = tf.raw_ops.StringSplitV2(input=coded, sep=_SCAN, maxsplit=MAX_SCANS_SEARCHED)
    behind = parts.indices[:, 1] > 0
    rows = tf.gather(files, tf.boolean_mask(parts.indices[:, 0], behind))
    headers = window(tf.boolean_mask(parts.values, behind), 0, 13)
    # The cost of a scan is the number of its blocks, so one of three components counts as three.
    weights = tf.cast(tf.clip_by_value(headers[:, 1], 1, 4), tf.int64)
    scans = tf.math.unsorted_segment_sum(weights, rows, count)
    reached = _reached(headers, tf.gather(head, rows))
    reached = tf.math.unsorted_segment_max(tf.cast(reached, tf.int32), rows, count) > 0
    there = tf.range(4) < head[:, 9:10]
    whole = tf.reduce_all(reached | ~there[:, :, tf.newaxis], [1, 2])
    return tf.where(several, scans, 1), whole | ~several


def _reached(headers: tf.Tensor, head: tf.Tensor) -> tf.Tensor:
    """bool [S, 4, 64]: which components' frequencies a scan gives, down to the last bit.

    `headers` int32 [S, 13] are those of scans from the second byte of their length on, `head` of
    their frames.
    """
    components = headers[:, 1:2]
    named = headers[:, 2:10:2][:, :, tf.newaxis]
    given = tf.range(4) < components
    ids = tf.gather(head, [10, 13, 16, 19], axis=1)[:, tf.newaxis]
    mine = tf.reduce_any(tf.equal(named, ids) & given[:, :, tf.newaxis], 1)
    # After the components: the first frequency, the last, and two numbers of bits.
    at = tf.clip_by_value(2 + 2 * components, 0, 10) + tf.range(3)
    first, last, bits = tf.unstack(tf.gather(headers, at, axis=1, batch_dims=1), axis=1)
    frequency = tf.range(64)
    held = (first[:, tf.newaxis] <= frequency) & (frequency <= last[:, tf.newaxis])
    held &= tf.equal(bits % 16, 0)[:, tf.newaxis]
    return mine[:, :, tf.newaxis] & held[:, tf.newaxis]


# Bytes without a marker, in an order that equal blocks cannot have. Between them is every marker
# that a decoder may wait for at a cut.
_PART = bytes((at * at * 31 + at * 7 + 85) % 251 for at in range(128))
_NOISE = _PART + b"".join(bytes([0xFF, 0xD0 + at]) + _PART for at in range(8))


def require_whole(
    data: tf.Tensor, pixels: Callable[[tf.Tensor], tf.Tensor], extra: tf.Tensor
) -> tf.Tensor:
    """The result of `pixels` for one file. Fails if its only scan is truncated.

    A decoder leaves blocks without data grey. So if the last pixel is grey, the file is decoded
    again with noise before its end. The image stays the same if the decoder had all of its data;
    otherwise it decodes the noise.
    """
    image = pixels(data)
    blank = tf.where(extra[0] < 4, 128, 64)
    grey = tf.reduce_all(tf.abs(tf.cast(image[-1, -1], tf.int32) - blank) <= 1)

    def same() -> tf.Tensor:
        scan = extra[1]
        rest = tf.strings.substr(data, scan, tf.strings.length(data))
        coded = tf.raw_ops.StringSplitV2(input=rest[tf.newaxis], sep=_END, maxsplit=1).values[0]
        head = tf.strings.substr(data, tf.zeros_like(scan), scan)
        return tf.reduce_all(tf.equal(pixels(tf.strings.join([head, coded, _NOISE, _END])), image))

    whole = tf.cond(grey, same, lambda: tf.constant(True))
    with tf.control_dependencies([tf.raw_ops.Assert(condition=whole, data=[extra])]):
        return tf.identity(image)
