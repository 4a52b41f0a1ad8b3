"""Folding keeps the function, folds known structures, and leaves all others unchanged."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from featurewire_exporter.graph.fold import fold
from featurewire_exporter.graph.freeze import FrozenNetwork, freeze
from featurewire_exporter.source.module import load_module

tf1 = tf.compat.v1


def network_of(build, channels: int = 3) -> FrozenNetwork:
    """A frozen network of `build(images) -> [N, D]`."""
    with tf.Graph().as_default() as graph:
        images = tf1.placeholder(tf.float32, [None, 12, 10, channels], name="images")
        output = build(images)
        return FrozenNetwork(graph_def=graph.as_graph_def(), input="images", output=output.name)


def run(network: FrozenNetwork, images: np.ndarray, *, optimised: list[str] | None = None):
    with tf.Graph().as_default():
        (output,) = tf.graph_util.import_graph_def(
            network.graph_def, return_elements=[network.output], name=""
        )
        with tf1.Session() as session:
            options = tf1.RunOptions(output_partition_graphs=True)
            metadata = tf1.RunMetadata()
            result = session.run(
                output, {f"{network.input}:0": images}, options=options, run_metadata=metadata
            )
            if optimised is not None:
                optimised += [n.op for graph in metadata.partition_graphs for n in graph.node]
            return result


def ops(network: FrozenNetwork) -> Counter:
    return Counter(node.op for node in network.graph_def.node)


def images(channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random([4, 12, 10, channels], dtype=np.float32)


def values(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def pooled(net):
    return tf.reduce_mean(net, [1, 2])


def norm(net, channels: int, **options):
    return tf1.nn.fused_batch_norm(
        net,
        values(channels, seed=2),
        values(channels, seed=3),
        mean=values(channels, seed=4),
        variance=np.abs(values(channels, seed=5)) + 0.1,
        is_training=False,
        **options,
    )[0]


def conv(net, filters: int = 5, *, padding: str = "SAME", seed: int = 1):
    return tf.nn.conv2d(net, values(3, 3, net.shape[3], filters, seed=seed), 1, padding)


FOLDED = {
    "fused batch norm": lambda x: norm(conv(x), 5, epsilon=0.01),
    "batch norm of single operations": lambda x: tf.nn.batch_normalization(
        conv(x), values(5), np.abs(values(5)) + 0.1, values(5, seed=7), values(5, seed=8), 1e-3
    ),
    "bias, then scale": lambda x: tf.nn.bias_add(conv(x), values(5)) * 0.17,
    "scale from the left": lambda x: 0.17 * conv(x),
    "division": lambda x: conv(x) / 3.0,
    "subtraction": lambda x: conv(x) - values(5),
    "subtraction from a constant": lambda x: values(5) - conv(x),
    "input scaled and shifted": lambda x: conv(x * 2.0 - 1.0, padding="VALID") + values(5),
    "input scaled a channel": lambda x: conv(x * values(3, seed=9)) + values(5),
    "depthwise": lambda x: norm(tf.nn.depthwise_conv2d(x, values(3, 3, 3, 2), [1] * 4, "SAME"), 6),
    "identities between": lambda x: norm(tf.identity(tf.stop_gradient(conv(x))), 5) * 2.0,
}


@pytest.mark.parametrize("build", FOLDED.values(), ids=FOLDED)
def test_arithmetic_with_constants_becomes_one_bias(build):
    network = network_of(lambda x: pooled(tf.nn.relu(build(x))))
    folded = fold(network)

    np.testing.assert_allclose(run(folded, images()), run(network, images()), rtol=1e-4, atol=1e-5)
    left = ops(folded)
    convolutions = left.pop("Conv2D", 0) + left.pop("DepthwiseConv2dNative", 0)
    assert convolutions == 1
    assert set(left) == {"Const", "Placeholder", "BiasAdd", "Relu", "Mean"}


KEPT = {
    # Zero padding follows the shift, so moving the shift after it would be wrong at the border.
    "a shift before zero padding": (lambda x: conv(x - 1.0) + values(5), {"AddV2", "Sub"}),
    "a norm of the batch": (
        lambda x: tf1.nn.fused_batch_norm(conv(x), tf.ones([5]), tf.zeros([5]))[0],
        {"FusedBatchNormV3"},
    ),
    "a scale a pixel": (lambda x: conv(x) * values(12, 10, 1), {"Mul"}),
    "a convolution used twice": (
        lambda x: (lambda c: tf.concat([c * 2.0, tf.nn.relu(c)], 3))(conv(x)),
        {"Mul"},
    ),
    "weights that are computed": (
        lambda x: tf.nn.conv2d(x, tf.reduce_mean(x) * values(3, 3, 3, 5), 1, "SAME") * 2.0,
        {"Mul"},
    ),
    "one channel times many factors": (lambda x: conv(x, 1) * values(5), {"Mul"}),
    "one channel in times many factors": (
        lambda x: conv(x[..., :1] * values(5), padding="VALID") + values(5),
        {"Mul"},
    ),
    "a norm after a concatenation": (
        lambda x: norm(tf.concat([conv(x), conv(x, seed=2)], 3), 10),
        {"FusedBatchNormV3"},
    ),
}


@pytest.mark.parametrize(("build", "kept"), KEPT.values(), ids=KEPT)
def test_what_does_not_match_stays(build, kept):
    network = network_of(lambda x: pooled(build(x)))
    folded = fold(network)

    np.testing.assert_allclose(run(folded, images()), run(network, images()), rtol=1e-4, atol=1e-5)
    assert kept & set(ops(folded))


def test_weights_shared_by_two_convolutions_are_folded_separately():
    def build(x):
        weights = tf.constant(values(3, 3, 3, 5))
        first, second = (tf.nn.conv2d(x, weights, 1, "SAME") for _ in range(2))
        return pooled(first * 2.0 + second * 3.0)

    network = network_of(build)
    np.testing.assert_allclose(
        run(fold(network), images()), run(network, images()), rtol=1e-4, atol=1e-5
    )


def test_the_input_graph_is_left_as_it_was():
    network = network_of(lambda x: pooled(norm(conv(x), 5)))
    before = network.graph_def.SerializeToString(deterministic=True)

    fold(network)

    assert network.graph_def.SerializeToString(deterministic=True) == before


def test_an_output_in_the_middle_of_a_chain_stays():
    network = network_of(lambda x: conv(x) * 2.0)
    folded = fold(network)

    np.testing.assert_allclose(run(folded, images()), run(network, images()), atol=1e-4)


def _residual(biases: np.ndarray):
    def build(x):
        net = tf.nn.relu(tf.nn.bias_add(conv(x, 8), values(8)))
        up = tf.nn.bias_add(tf.nn.conv2d(net, values(1, 1, 8, 8), 1, "SAME"), biases)
        return pooled(tf.nn.relu(net + up * 0.17))

    return network_of(build)


@pytest.mark.parametrize("biases", [values(8), np.zeros(8, np.float32)], ids=["trained", "zero"])
def test_a_residual_join_runs_as_one_operation(biases):
    """Also with biases of zero, which TensorFlow's constant folder would drop."""
    optimised: list[str] = []
    network = _residual(biases)
    folded = fold(network)
    result = run(folded, images(), optimised=optimised)

    np.testing.assert_allclose(result, run(network, images()), rtol=1e-4, atol=1e-5)
    if not any("Mkl" in op for op in optimised):
        pytest.skip("TensorFlow runs without oneDNN, and only oneDNN fuses joins")
    assert not {"Add", "AddV2", "Relu", "Mul", "BiasAdd"} & set(optimised)


@pytest.mark.parametrize("scale", [1e-8, 1e-16])
def test_a_bias_of_zeros_leaves_small_features_alone(scale):
    network = network_of(lambda x: pooled(tf.nn.relu(conv(x) * scale)))

    np.testing.assert_allclose(run(fold(network), images()), run(network, images()), rtol=1e-4)


def test_swish_into_a_convolution_is_folded():
    """The gradient adds an `IdentityN`, whose attribute T is a list of types."""
    network = network_of(lambda x: pooled(norm(conv(tf.nn.silu(conv(x, 3))), 5)))
    folded = fold(network)

    assert "IdentityN" in ops(network)
    assert "IdentityN" not in ops(folded)
    np.testing.assert_allclose(run(folded, images()), run(network, images()), rtol=1e-4, atol=1e-5)


def test_a_tf2_functions_leftovers_go(tf2_module, pixels):
    module = load_module(str(tf2_module))
    network = freeze(module)
    folded = fold(network)

    np.testing.assert_allclose(run(folded, pixels), module(pixels), rtol=1e-4, atol=1e-5)
    assert not {"NoOp", "Identity", "Rsqrt", "Mul", "Sub"} & set(ops(folded))


@pytest.mark.slow
def test_the_network_is_fused_convolutions_and_no_addition(stand_in):
    module = load_module(str(stand_in.module))
    folded = fold(freeze(module))
    assert ops(folded)["Conv2D"] == ops(folded)["BiasAdd"] == stand_in.convolutions
    assert "FusedBatchNormV3" not in ops(folded)

    optimised: list[str] = []
    run(folded, np.zeros([1, 299, 299, 3], np.float32), optimised=optimised)
    counts = Counter(optimised)
    if not any("Mkl" in op for op in optimised):
        pytest.skip("TensorFlow runs without oneDNN, and only oneDNN fuses joins")
    assert counts["_MklNativeFusedConv2D"] == stand_in.convolutions
    assert not {"AddV2", "Relu", "Mul", "BiasAdd"} & set(counts)
