"""Tiny SavedModels with the signatures of exported versions, made in a second.

They replace the network in tests of the server and the client: `image_bytes` [N] in, `features`
[N, dimension] and `status` [N] out. A vector depends only on the image's bytes and the version.
"""

from __future__ import annotations

import json
from pathlib import Path

JPEG_MAGIC = b"\xff\xd8\xff"


def expected_vector(image: bytes, *, dimension: int = 8, version: int = 1):
    """The vector of a version of `write_tiny_model` for `image`: float32 [dimension]."""
    import numpy as np

    total = np.float32(sum(image) % 1000)
    return total + np.arange(dimension, dtype=np.float32) + np.float32(1000 * version)


def write_tiny_model(
    base_path: Path,
    version: int = 1,
    *,
    dimension: int = 8,
    with_status: bool = True,
    with_manifest: bool = True,
    fails_on_bad_image: bool = False,
    answers: int | None = None,
    bridge_to: int | None = None,
) -> Path:
    """Write `base_path/<version>` and return it.

    Images that do not start like a JPEG get status 2 (`unsupported`) and a NaN row, and empty ones
    status 1. With `fails_on_bad_image` they fail the whole batch, as in a plain SavedModel.
    `answers`: all calls after this many fail. `bridge_to`: also serves the vectors of that version,
    through a bridge.
    """
    import tensorflow as tf

    module = tf.Module()
    module.offset = tf.Variable(1000.0 * version, name="offset")
    module.calls = tf.Variable(0, trainable=False, name="calls")

    def features_of(image_bytes):
        def one(image):
            codes = tf.cast(tf.io.decode_raw(image, tf.uint8), tf.int32)
            total = tf.cast(tf.reduce_sum(codes) % 1000, tf.float32)
            return total + tf.range(dimension, dtype=tf.float32) + module.offset

        return tf.map_fn(one, image_bytes, fn_output_signature=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve(image_bytes):
        empty = tf.strings.length(image_bytes) == 0
        jpeg = tf.strings.substr(image_bytes, 0, 3) == JPEG_MAGIC
        status = tf.where(empty, 1, tf.where(jpeg, 0, 2))
        if fails_on_bad_image:
            with tf.control_dependencies([tf.debugging.assert_equal(status, 0, "bad image")]):
                status = tf.identity(status)
        if answers is not None:
            calls = module.calls.assign_add(1)
            with tf.control_dependencies([tf.debugging.assert_less_equal(calls, answers, "tired")]):
                status = tf.identity(status)
        features = features_of(image_bytes)
        features = tf.where((status == 0)[:, tf.newaxis], features, float("nan"))
        features = tf.ensure_shape(features, [None, dimension])
        return {"features": features, "status": status} if with_status else {"features": features}

    about = {
        "featurewire_version": "0.1.0",
        "module": {"handle": "tiny", "stand_in": True},
        "vector_space": f"tiny-{version}",
        "dimension": dimension,
    }
    if bridge_to is not None:
        about["vector_spaces"] = [
            {"vector_space": f"tiny-{version}", "signature": "serving_default", "bridged": False},
            {
                "vector_space": f"tiny-{bridge_to}",
                "signature": f"bridge_tiny-{bridge_to}",
                "dimension": dimension,
                "bridged": True,
                "retention": {"recall_at_1": 0.93, "recall_at_10": 0.98},
            },
        ]
    manifest = json.dumps(about)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def bridge(image_bytes):
        served = serve(image_bytes)
        features = served["features"] - 1000.0 * (version - bridge_to)
        return {**served, "features": tf.ensure_shape(features, [None, dimension])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="request")])
    def describe(request):
        return {"manifest": tf.fill(tf.shape(request), manifest)}

    module.serve, module.describe = serve, describe
    signatures = {"serving_default": serve}
    if with_manifest:
        signatures["manifest"] = describe
    if bridge_to is not None:
        signatures[f"bridge_tiny-{bridge_to}"] = bridge
    target = base_path / str(version)
    tf.saved_model.save(module, str(target), signatures=signatures)
    return target


def write_turned_model(
    base_path: Path, version: int, *, bridge_to: int | None = None, turned_as: int | None = None
) -> Path:
    """Write `base_path/<version>` and return it: its vectors differ in direction between images.

    Each version rotates the 16 numbers of an image differently, so each has its own vector space. A
    bridge applies the rotation of version `bridge_to`, or a bad one that of version `turned_as`.
    """
    import tensorflow as tf

    size = 16

    def rotation(of: int):
        drawn = tf.random.stateless_normal([size, size], seed=[of, 1])
        return tf.Variable(tf.linalg.qr(drawn)[0], name=f"rotation_{of}")

    module = tf.Module()
    turned_as = turned_as or bridge_to or version
    module.rotations = {str(of): rotation(of) for of in {version, turned_as}}

    def serving(of: int):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def serve(image_bytes):
            def one(image):
                seed = tf.strings.to_hash_bucket_fast(image, 1 << 30)
                return tf.random.stateless_normal([size], seed=tf.stack([seed, 0]))

            drawn = tf.map_fn(one, image_bytes, fn_output_signature=tf.float32)
            features = tf.matmul(drawn, module.rotations[str(of)])
            status = tf.zeros(tf.shape(image_bytes), tf.int32)
            return {"features": tf.ensure_shape(features, [None, size]), "status": status}

        return serve

    about = {
        "featurewire_version": "0.1.0",
        "module": {"handle": "turned", "stand_in": True},
        "vector_space": f"turned-{version}",
        "dimension": size,
    }
    signatures = {"serving_default": serving(version)}
    if bridge_to is not None:
        space = f"turned-{bridge_to}"
        signatures[f"bridge_{space}"] = serving(turned_as)
        about["vector_spaces"] = [
            {"vector_space": f"turned-{version}", "signature": "serving_default", "bridged": False},
            {
                "vector_space": space,
                "signature": f"bridge_{space}",
                "dimension": size,
                "bridged": True,
                "retention": {"recall_at_1": 1.0, "recall_at_10": 1.0},
            },
        ]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="request")])
    def describe(request):
        return {"manifest": tf.fill(tf.shape(request), json.dumps(about))}

    signatures["manifest"] = describe
    module.parts = list(signatures.values())
    target = base_path / str(version)
    tf.saved_model.save(module, str(target), signatures=signatures)
    return target
