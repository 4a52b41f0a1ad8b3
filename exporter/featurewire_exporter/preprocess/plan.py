"""Plans the decode and resize of each image of a batch, from its header alone.

As much as possible is computed here, for the whole batch at once. The function that runs for each
image is built again for each batch, and its cost grows with its number of operations.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from featurewire_exporter.preprocess.config import PreprocessConfig
from featurewire_exporter.preprocess.formats import RATIOS, Images
from featurewire_exporter.preprocess.orientation import exchanges_sides, reversed_sides

_WIDE = 16
"""Ratio of width to height from which a picture is transposed first."""


class Side(NamedTuple):
    """Arguments to resize one side of a decoded image; for N images, or for one."""

    bounds: tf.Tensor
    """int32 [N, 2]: the first decoded pixel that is used, and the one after the last."""

    size: tf.Tensor
    """int32 [N, 2]: the pixels that they become, and 1."""

    scale: tf.Tensor
    """float32 [N, 2]: the pixels that each of them becomes, and 1."""

    offset: tf.Tensor
    """float32 [N, 2]: where, in the result, the first of them begins (0 or before), and 0."""


class Plan(NamedTuple):
    """The plan of N images, or of one."""

    decoder: tf.Tensor
    """int32 [N], an index as `formats.decode` takes it."""

    shape: tf.Tensor
    """int32 [N, 3]: the shape in the header, as `formats.decode` takes it."""

    extra: tf.Tensor
    """int32 [N, 4], as the header has it."""

    decoded: tf.Tensor
    """int32 [N, 3]: the shape of the decoded image, after `turn`."""

    turn: tf.Tensor
    """int32 [N, 3]: 0, 1, 2; or 1, 0, 2 where the decoded image is turned over before resizing."""

    rows: Side
    columns: Side

    sharpening: tf.Tensor
    """float32 [N]: strength of the sharpening after a scaled decode; 0 for none."""

    level_shift: tf.Tensor
    """float32 [N, 2, 3], as the header has it; 0 for a full decode."""

    order: tf.Tensor
    """int32 [N, 3]: 0, 1, 2; or 1, 0, 2 where rows become columns, after resizing."""

    backwards: tf.Tensor
    """bool [N, 3]: whether rows, and columns, are to run the other way, after that."""


def make_plans(images: Images, config: PreprocessConfig) -> Plan:
    """The plans of a batch; only plans of images with positive sides are valid."""
    header = images.header
    sides = tf.stack([header.height, header.width], 1)
    exchanged = exchanges_sides(header.orientation)[:, tf.newaxis]
    upright = tf.constant([[config.height, config.width]])
    target = tf.where(exchanged, upright[:, ::-1], upright)
    start, extent = _central(sides, config.central_crop)
    step = _ratio_index(images.is_jpeg, extent, target, config)
    ratio = tf.gather(tf.constant(RATIOS), step)[:, tf.newaxis]
    divisor = tf.cast(ratio, tf.float32)
    start, extent = tf.cast(start, tf.float32) / divisor, tf.cast(extent, tf.float32) / divisor
    sides = tf.cast(tf.minimum(sides, 1 << 30), tf.int32)
    three = tf.fill(tf.shape(exchanged), 3)
    components = tf.where(images.is_jpeg[:, tf.newaxis], header.extra[:, :1], three)
    backwards = reversed_sides(header.orientation)
    blur = (1 - 1 / tf.square(divisor)) / 24
    decoded = -(-sides // ratio)
    rows = _side(start[:, 0], extent[:, 0], target[:, 0])
    columns = _side(start[:, 1], extent[:, 1], target[:, 1])
    # Rows are resized first. For a strip of 65535 x 1 pixels that would take hundreds of
    # megabytes, so it is transposed.
    wide = (header.width > _WIDE * header.height)[:, tf.newaxis]

    def swapped(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
        return tf.where(wide, other, one)

    return Plan(
        decoder=header.decoder + step,
        shape=tf.concat([sides, components], 1),
        extra=header.extra,
        decoded=tf.concat([swapped(decoded, decoded[:, ::-1]), three], 1),
        turn=_order(wide),
        rows=tf.nest.map_structure(swapped, rows, columns),
        columns=tf.nest.map_structure(swapped, columns, rows),
        sharpening=blur[:, 0],
        level_shift=tf.where(ratio[:, tf.newaxis] > 1, header.level_shift, 0.0),
        order=_order(tf.not_equal(exchanged, wide)),
        backwards=tf.concat([backwards, tf.zeros_like(exchanged)], 1),
    )


def _order(exchanged: tf.Tensor) -> tf.Tensor:
    return tf.where(exchanged, [[1, 0, 2]], [[0, 1, 2]])


def _side(start: tf.Tensor, extent: tf.Tensor, target: tf.Tensor) -> Side:
    first = tf.floor(start)
    scale = tf.cast(target, tf.float32) / extent
    return Side(
        bounds=tf.cast(tf.stack([first, tf.math.ceil(start + extent)], 1), tf.int32),
        size=tf.stack([target, tf.ones_like(target)], 1),
        scale=tf.stack([scale, tf.ones_like(scale)], 1),
        offset=tf.stack([(first - start) * scale, tf.zeros_like(scale)], 1),
    )


def _central(sides: tf.Tensor, share: float) -> tuple[tf.Tensor, tf.Tensor]:
    """(start, extent) int64 of the middle `share` of sides, as `tf.image.central_crop` cuts."""
    if share >= 1:
        return tf.zeros_like(sides), sides
    cut = tf.cast(tf.floor(tf.cast(sides, tf.float64) * ((1 - share) / 2)), tf.int64)
    cut = tf.minimum(cut, (sides - 1) // 2)  # something is always left
    return cut, sides - 2 * cut


def _ratio_index(
    is_jpeg: tf.Tensor, extent: tf.Tensor, target: tf.Tensor, config: PreprocessConfig
) -> tf.Tensor:
    """int32 [N]: the largest ratio of the decode that leaves enough to resize from."""
    best = tf.zeros_like(is_jpeg, tf.int32)
    for ratio, margin in sorted(config.scaled_decode.items()):
        least = ratio * margin * tf.cast(target, tf.float32)
        enough = tf.cast(extent, tf.float32) >= least
        best = tf.where(is_jpeg & tf.reduce_all(enough, 1), RATIOS.index(ratio), best)
    return best
