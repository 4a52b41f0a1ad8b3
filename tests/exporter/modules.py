"""Tiny image-feature-vector modules, one per format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from featurewire_exporter.graph.freeze import FrozenNetwork

SIZE = (20, 24)
DIMENSION = 6

tf1 = tf.compat.v1


def write_tf2_module(
    directory: Path,
    *,
    size: tuple[int | None, int | None] = SIZE,
    dimension: int = DIMENSION,
    signature: bool = False,
    seed: int = 1,
) -> Path:
    """A TF2 SavedModel: convolution, batch norm, residual join, mean. `__call__(images, training)`.

    With `training` its vectors depend on the other images of the batch.
    """
    random = np.random.default_rng(seed)

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = tf.Variable(random.normal(size=[3, 3, 3, 4]).astype(np.float32))
            self.up = tf.Variable(random.normal(size=[1, 1, 4, dimension]).astype(np.float32))
            self.beta = tf.Variable(random.normal(size=[4]).astype(np.float32))
            self.mean = tf.Variable(random.normal(size=[4]).astype(np.float32))
            self.variance = tf.Variable(random.uniform(0.5, 2, size=[4]).astype(np.float32))

        @tf.function
        def __call__(self, images, training=False):
            net = tf.nn.conv2d(images * 2.0 - 1.0, self.weights, 2, "VALID")
            if training:
                mean, variance = tf.nn.moments(net, [0, 1, 2])
            else:
                mean, variance = self.mean, self.variance
            net = tf.nn.relu((net - mean) * tf.math.rsqrt(variance + 1e-3) + self.beta)
            return tf.reduce_mean(tf.nn.conv2d(net, self.up, 1, "SAME"), [1, 2])

    module = Module()
    image_spec = tf.TensorSpec([None, *size, 3], tf.float32, name="images")
    for training in (False, True):
        module.__call__.get_concrete_function(image_spec, training=training)
    signatures = {}
    if signature:

        @tf.function(input_signature=[image_spec])
        def serve(images):
            return {"vectors": module(images, training=False)}

        module.serve = serve
        signatures = {"serving_default": serve}
    tf.saved_model.save(module, str(directory), signatures=signatures or None)
    return directory


def write_tf1_hub_module(
    directory: Path,
    *,
    use_resource: bool = False,
    announce: bool = True,
    tags: tuple[tuple[str, ...], ...] = ((), ("train",)),
    activation: Callable[[tf.Tensor], tf.Tensor] = tf.nn.relu,
    seed: int = 1,
) -> Path:
    """A module in TF1 Hub format, with reference variables and a train variant.

    `activation` is applied to the features, and to the images before their convolution.
    """
    from featurewire_exporter.source import tf1_hub

    random = np.random.default_rng(seed)
    values = {
        "net/weights": random.normal(size=[3, 3, 3, DIMENSION]).astype(np.float32),
        "net/BatchNorm/beta": random.normal(size=[DIMENSION]).astype(np.float32),
        "net/BatchNorm/moving_mean": random.normal(size=[DIMENSION]).astype(np.float32),
        "net/BatchNorm/moving_variance": random.uniform(0.5, 2, [DIMENSION]).astype(np.float32),
    }
    metas = []
    for variant in tags:
        with tf.Graph().as_default():
            # Modules of that time state their size only in ImageModuleInfo.
            images = tf1.placeholder(tf.float32, [None, None, None, 3], name="images")
            weights, beta, mean, variance = (
                tf1.get_variable(
                    name,
                    value.shape,
                    initializer=tf1.zeros_initializer(),
                    use_resource=use_resource,
                )
                for name, value in values.items()
            )
            net = tf.nn.conv2d(activation(images), weights, 1, "SAME")
            net = tf1.nn.fused_batch_norm(
                net,
                tf.ones([DIMENSION]),
                beta,
                **({} if "train" in variant else {"mean": mean, "variance": variance}),
                is_training="train" in variant,
            )[0]
            net = activation(net)
            vector = tf.reduce_mean(net, [1, 2])
            outputs = {"default": vector, "net/relu": net}
            metas.append(
                tf1_hub.meta_graph(
                    tags=variant,
                    signatures={
                        "default": ({"images": images}, {"default": vector}),
                        "image_feature_vector": ({"images": images}, outputs),
                    },
                    image_size=SIZE if announce else (0, 0),
                )
            )
    directory.mkdir(parents=True)
    tf1_hub.write_module(directory, meta_graphs=metas, variables=values)
    return directory


def _table() -> tf.lookup.StaticHashTable:
    values = tf.lookup.KeyValueTensorInitializer(tf.range(9, dtype=tf.int64), tf.zeros([9]))
    return tf.lookup.StaticHashTable(values, 0.0)


def write_tf2_module_with_a_table(directory: Path) -> Path:
    """A TF2 SavedModel whose vectors depend on a lookup table."""

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = _table()

        @tf.function(input_signature=[tf.TensorSpec([None, *SIZE, 3], tf.float32)])
        def __call__(self, images):
            means = tf.reduce_mean(images, [1, 2])
            return means + self.table.lookup(tf.cast(means * 8, tf.int64))

    tf.saved_model.save(Module(), str(directory))
    return directory


def write_tf1_module_with_a_table(directory: Path) -> Path:
    """The same module as a TensorFlow 1 SavedModel."""
    with tf.Graph().as_default(), tf1.Session() as session:
        images = tf1.placeholder(tf.float32, [None, *SIZE, 3])
        means = tf.reduce_mean(images, [1, 2])
        vectors = means + _table().lookup(tf.cast(means * 8, tf.int64))
        signature = tf1.saved_model.predict_signature_def({"images": images}, {"default": vectors})
        builder = tf1.saved_model.Builder(str(directory))
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": signature}, main_op=tf1.tables_initializer()
        )
        builder.save()
    return directory


def run_frozen(network: FrozenNetwork, images: np.ndarray) -> np.ndarray:
    """The output of a frozen network for float32 `images`."""
    with tf.Graph().as_default(), tf1.Session() as session:
        (output,) = tf.graph_util.import_graph_def(
            network.graph_def, return_elements=[network.output], name=""
        )
        return session.run(output, {f"{network.input}:0": images})
