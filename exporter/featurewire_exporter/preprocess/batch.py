"""Decodes a batch of images so that an image that fails leaves only its own row empty.

The headers of all images are read at once, with operations that cannot fail. They decide which
images are decoded, and how. Decoding can fail, and TensorFlow has one way to survive a failing
operation inside a graph: a tf.data pipeline that drops the element (`ignore_errors`). So a dataset
decodes and resizes the images on all cores, and an image that it drops is corrupt. Because it also
resizes, memory never holds more decoded images than there are cores.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import tensorflow as tf

from featurewire_exporter.preprocess.config import (
    CORRUPT,
    EMPTY,
    MAX_IMAGE_SIDE,
    MAX_SCANS,
    MAX_SCANS_EVER,
    OK,
    TOO_LARGE,
    UNSUPPORTED,
    PreprocessConfig,
)
from featurewire_exporter.preprocess.formats import Images, decode
from featurewire_exporter.preprocess.plan import Plan, make_plans
from featurewire_exporter.preprocess.resize import resize

_CPU = "/CPU:0"


def batch_decode(
    config: PreprocessConfig,
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """The function that `build_decode` returns, for settings that were checked."""

    @tf.autograph.experimental.do_not_convert
    def decode_good(image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Explicitly: string work that lands on a GPU fails with a "non-DMA-copy" error.
        with tf.device(_CPU):
            data = tf.convert_to_tensor(image_bytes, tf.string)
            images = Images(data, config)
            status = _judge(data, images, config)
            wanted = tf.where(tf.equal(status, OK))[:, 0]
            plans = make_plans(images, config)
            plans = tf.nest.map_structure(lambda of_all: tf.gather(of_all, wanted), plans)

            rows = tf.data.Dataset.from_tensor_slices((wanted, plans))
            most = tf.size(wanted, out_type=tf.int64)
            # A separate function, which both datasets share.
            one = tf.function(partial(_pixels, config=config), autograph=False)

            @tf.autograph.experimental.do_not_convert
            def survivor(index: tf.Tensor, plan: Plan) -> tuple[tf.Tensor, tf.Tensor]:
                with tf.device(_CPU):
                    return index, one(data[index], plan)

            survivors, pixels = tf.cond(
                most > 1,
                lambda: _collect(rows.map(survivor, tf.data.AUTOTUNE), most, config),
                # For a single image, the thread that distributes several is not worth its cost.
                lambda: _collect(rows.map(survivor), most, config),
            )
            survived = tf.scatter_nd(
                survivors[:, tf.newaxis],
                tf.ones_like(survivors, tf.int32),
                tf.shape(status, out_type=tf.int64),
            )
            broken = tf.equal(status, OK) & tf.equal(survived, 0)
            status = tf.where(broken, CORRUPT, status)
            pixels.set_shape([None, config.height, config.width, 3])
            status.set_shape([data.shape[0]])
        return pixels, status

    return decode_good


def spread(rows: tf.Tensor, status: tf.Tensor, fill: float) -> tf.Tensor:
    """float32 `[N, …]`: `rows`, float32 `[M, …]`, at the M places where `status`, int32 `[N]`,
    is 0, and `fill` at the others."""

    def with_gaps() -> tf.Tensor:
        at = tf.where(tf.equal(status, OK))
        shape = tf.concat([tf.shape(status), tf.shape(rows)[1:]], 0)
        return tf.tensor_scatter_nd_update(tf.fill(shape, np.float32(fill)), at, rows)

    with tf.device(_CPU):
        complete = tf.equal(tf.shape(rows)[0], tf.shape(status)[0])
        spread = tf.cond(complete, lambda: rows, with_gaps)
        spread.set_shape([status.shape[0], *rows.shape[1:]])
    return spread


def _judge(data: tf.Tensor, images: Images, config: PreprocessConfig) -> tf.Tensor:
    """int32 [N]: the status of each image, as far as its header tells."""
    length = tf.strings.length(data)
    height, width = images.header.height, images.header.width
    # The sides are bounded first, so that their product does not overflow.
    pixels = tf.minimum(height, 1 << 30) * tf.minimum(width, 1 << 30)
    pixels = (pixels * images.header.thirds + 2) // 3
    large = (tf.maximum(height, width) > MAX_IMAGE_SIDE) | (pixels > config.max_pixels)
    least = -(-config.max_pixels * MAX_SCANS // MAX_SCANS_EVER)
    large |= images.header.scans > config.max_pixels * MAX_SCANS // tf.maximum(pixels, least)
    status = tf.where(large, TOO_LARGE, OK)
    status = tf.where((height <= 0) | (width <= 0), CORRUPT, status)
    status = tf.where(images.known, status, UNSUPPORTED)
    status = tf.where(length > config.max_image_bytes, TOO_LARGE, status)
    return tf.where(tf.equal(length, 0), EMPTY, status)


def _pixels(data: tf.Tensor, plan: Plan, config: PreprocessConfig) -> tf.Tensor:
    """float32 [height, width, 3] in [0, 1], of one file. Fails where the file is broken."""
    with tf.device(_CPU):
        image = decode(data, plan.decoder, plan.shape, plan.extra, config)
        image = resize(tf.transpose(image, plan.turn), plan, config)
        image = tf.transpose(image, plan.order)
        image = tf.cond(
            tf.reduce_any(plan.backwards),
            lambda: tf.raw_ops.Reverse(tensor=image, dims=plan.backwards),
            lambda: image,
        )
        image = tf.ensure_shape(image, [config.height, config.width, 3])
        return tf.clip_by_value(image * (1 / 255), 0.0, 1.0)


def _collect(
    rows: tf.data.Dataset, most: tf.Tensor, config: PreprocessConfig
) -> tuple[tf.Tensor, tf.Tensor]:
    """The surviving rows of a dataset of up to `most`: indices, int64 [M], and pixels."""
    # Taken if all rows were dropped, because an empty dataset has no single element.
    nothing = (tf.zeros([0], tf.int64), tf.zeros([0, config.height, config.width, 3]))
    rows = rows.ignore_errors().batch(tf.maximum(most, 1))
    rows = rows.concatenate(tf.data.Dataset.from_tensors(nothing)).take(1)
    options = tf.data.Options()
    # Without tuning and rewriting, a dataset starts in well under a millisecond, and AUTOTUNE
    # then means the number of cores of the server, not of the exporter.
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return tf.data.Dataset.get_single_element(rows.with_options(options))
