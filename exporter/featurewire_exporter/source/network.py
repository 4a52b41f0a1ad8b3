"""Inception ResNet V2 as a TensorFlow 1 graph, with TF-Slim's variable names.

Szegedy, Ioffe, Vanhoucke, Alemi: "Inception-v4, Inception-ResNet and the Impact of Residual
Connections on Learning", arXiv 1602.07261. One description of the network serves the stand-in
module and the TF-Slim checkpoint; a test holds it against `keras.applications`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

tf1 = tf.compat.v1

SCOPE = "InceptionResnetV2"
IMAGE_SIZE = 299
DIMENSION = 1536
END_POINTS = (
    "Conv2d_1a_3x3",
    "Conv2d_2a_3x3",
    "Conv2d_2b_3x3",
    "MaxPool_3a_3x3",
    "Conv2d_3b_1x1",
    "Conv2d_4a_3x3",
    "MaxPool_5a_3x3",
    "Mixed_5b",
    "Mixed_6a",
    "PreAuxLogits",
    "Mixed_7a",
    "Conv2d_7b_1x1",
)
"""Further outputs that a TF-Slim module announces, each under `InceptionResnetV2/`."""

_BN_EPSILON = 0.001
_BN_DECAY = 0.9997
_WEIGHT_DECAY = 0.00004

Kernel = int | tuple[int, int]


@dataclass(frozen=True)
class Size:
    """How large to build the network. The defaults are those of the paper."""

    divisor: int = 1
    """Divides the number of filters of every layer: 1, 2, 4, 8 or 16."""
    blocks: tuple[int, int, int] = (10, 20, 9)
    """Number of residual blocks at 35, 17 and 8 pixels, without the last block."""

    @property
    def dimension(self) -> int:
        """Length of the feature vectors."""
        return DIMENSION // self.divisor


FULL_SIZE = Size()


@dataclass(frozen=True, kw_only=True)
class Network:
    """What `build_network` put into the current graph."""

    features: tf.Tensor
    """float32 [N, 1536] at full size: the feature vectors."""
    end_points: dict[str, tf.Tensor] = field(default_factory=dict)
    """`END_POINTS` by name: float32 [N, height, width, channels]."""


def build_network(images: tf.Tensor, *, training: bool = False, size: Size = FULL_SIZE) -> Network:
    """Add the network to the current graph.

    `images`: float32 [N, 299, 299, 3] in [0, 1]. With `training`, batch normalisation uses the
    moments of the batch, and collections hold the update and regularisation operations, as the
    `{"train"}` variant of a TF1 Hub module does.
    """
    layers = _Layers(training=training, divisor=size.divisor)
    blocks35, blocks17, blocks8 = size.blocks
    points: dict[str, tf.Tensor] = {}
    # TF-Slim networks see [-1, 1]; hub modules take [0, 1].
    net = tf.subtract(tf.multiply(images, 2.0), 1.0)
    with tf1.variable_scope(SCOPE):
        net = points["Conv2d_1a_3x3"] = layers.conv(
            net, 32, 3, "Conv2d_1a_3x3", stride=2, padding="VALID"
        )
        net = points["Conv2d_2a_3x3"] = layers.conv(net, 32, 3, "Conv2d_2a_3x3", padding="VALID")
        net = points["Conv2d_2b_3x3"] = layers.conv(net, 64, 3, "Conv2d_2b_3x3")
        net = points["MaxPool_3a_3x3"] = _max_pool(net, "MaxPool_3a_3x3")
        net = points["Conv2d_3b_1x1"] = layers.conv(net, 80, 1, "Conv2d_3b_1x1", padding="VALID")
        net = points["Conv2d_4a_3x3"] = layers.conv(net, 192, 3, "Conv2d_4a_3x3", padding="VALID")
        net = points["MaxPool_5a_3x3"] = _max_pool(net, "MaxPool_5a_3x3")
        net = points["Mixed_5b"] = _mixed_5b(layers, net)
        net = _repeat(
            "Repeat",
            "block35",
            blocks35,
            net,
            lambda x: layers.residual(
                x,
                [
                    [(32, 1, "Conv2d_1x1")],
                    [(32, 1, "Conv2d_0a_1x1"), (32, 3, "Conv2d_0b_3x3")],
                    [
                        (32, 1, "Conv2d_0a_1x1"),
                        (48, 3, "Conv2d_0b_3x3"),
                        (64, 3, "Conv2d_0c_3x3"),
                    ],
                ],
                scale=0.17,
            ),
        )
        net = points["Mixed_6a"] = _mixed_6a(layers, net)
        net = points["PreAuxLogits"] = _repeat(
            "Repeat_1",
            "block17",
            blocks17,
            net,
            lambda x: layers.residual(
                x,
                [
                    [(192, 1, "Conv2d_1x1")],
                    [
                        (128, 1, "Conv2d_0a_1x1"),
                        (160, (1, 7), "Conv2d_0b_1x7"),
                        (192, (7, 1), "Conv2d_0c_7x1"),
                    ],
                ],
                scale=0.10,
            ),
        )
        net = points["Mixed_7a"] = _mixed_7a(layers, net)
        net = _repeat("Repeat_2", "block8", blocks8, net, lambda x: _block8(layers, x, scale=0.20))
        with tf1.variable_scope("Block8"):
            net = _block8(layers, net, scale=1.0, activation=False)
        net = points["Conv2d_7b_1x1"] = layers.conv(net, DIMENSION, 1, "Conv2d_7b_1x1")
        features = tf.reduce_mean(net, axis=[1, 2], name="global_pool")
    return Network(features=features, end_points=points)


class _Layers:
    """Layers that name their variables as TF-Slim does, relative to the variable scope."""

    def __init__(self, *, training: bool, divisor: int) -> None:
        self.training = training
        self.divisor = divisor

    def conv(
        self,
        net: tf.Tensor,
        filters: int,
        kernel: Kernel,
        scope: str,
        *,
        stride: int = 1,
        padding: str = "SAME",
    ) -> tf.Tensor:
        """Convolution without bias, batch normalisation without scale, ReLU.

        `filters`: of the full-size network.
        """
        with tf1.variable_scope(scope):
            net = self._convolve(net, filters // self.divisor, kernel, stride, padding)
            with tf1.variable_scope("BatchNorm"):
                net = self._batch_norm(net)
            return tf.nn.relu(net)

    def projection(self, net: tf.Tensor, filters: int, scope: str) -> tf.Tensor:
        """The 1x1 convolution at the end of a residual branch: bias, no norm, no activation."""
        with tf1.variable_scope(scope):
            net = self._convolve(net, filters, 1, 1, "SAME")
            return tf.nn.bias_add(net, _variable("biases", [filters], regularize=True))

    def branch(
        self, net: tf.Tensor, scope: str, convs: Sequence[tuple[int, Kernel, str]]
    ) -> tf.Tensor:
        with tf1.variable_scope(scope):
            for filters, kernel, name in convs:
                net = self.conv(net, filters, kernel, name)
            return net

    def residual(
        self,
        net: tf.Tensor,
        branches: Sequence[Sequence[tuple[int, Kernel, str]]],
        *,
        scale: float,
        activation: bool = True,
    ) -> tf.Tensor:
        towers = [self.branch(net, f"Branch_{i}", convs) for i, convs in enumerate(branches)]
        up = self.projection(tf.concat(towers, axis=3), net.shape[3], "Conv2d_1x1")
        net = net + up * scale
        return tf.nn.relu(net) if activation else net

    def _convolve(
        self, net: tf.Tensor, filters: int, kernel: Kernel, stride: int, padding: str
    ) -> tf.Tensor:
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        weights = _variable("weights", [height, width, net.shape[3], filters], regularize=True)
        return tf.nn.conv2d(net, weights, strides=stride, padding=padding)

    def _batch_norm(self, net: tf.Tensor) -> tf.Tensor:
        channels = [net.shape[3]]
        beta = _variable("beta", channels)
        mean = _variable("moving_mean", channels, trainable=False)
        variance = _variable("moving_variance", channels, trainable=False)
        gamma = tf.ones(channels)
        if not self.training:
            return tf1.nn.fused_batch_norm(
                net, gamma, beta, mean, variance, epsilon=_BN_EPSILON, is_training=False
            )[0]
        net, batch_mean, batch_variance = tf1.nn.fused_batch_norm(
            net, gamma, beta, epsilon=_BN_EPSILON, is_training=True
        )
        for moving, moment in ((mean, batch_mean), (variance, batch_variance)):
            update = tf1.assign_sub(moving, (moving - moment) * (1 - _BN_DECAY))
            tf1.add_to_collection(tf1.GraphKeys.UPDATE_OPS, update)
        return net


def _mixed_5b(layers: _Layers, net: tf.Tensor) -> tf.Tensor:
    with tf1.variable_scope("Mixed_5b"):
        towers = [
            layers.branch(net, "Branch_0", [(96, 1, "Conv2d_1x1")]),
            layers.branch(net, "Branch_1", [(48, 1, "Conv2d_0a_1x1"), (64, 5, "Conv2d_0b_5x5")]),
            layers.branch(
                net,
                "Branch_2",
                [(64, 1, "Conv2d_0a_1x1"), (96, 3, "Conv2d_0b_3x3"), (96, 3, "Conv2d_0c_3x3")],
            ),
        ]
        with tf1.variable_scope("Branch_3"):
            pooled = tf.nn.avg_pool2d(net, 3, 1, "SAME", name="AvgPool_0a_3x3")
            towers.append(layers.conv(pooled, 64, 1, "Conv2d_0b_1x1"))
        return tf.concat(towers, axis=3)


def _mixed_6a(layers: _Layers, net: tf.Tensor) -> tf.Tensor:
    with tf1.variable_scope("Mixed_6a"):
        towers = [
            _reduction(layers, net, "Branch_0", [], 384),
            _reduction(
                layers,
                net,
                "Branch_1",
                [(256, 1, "Conv2d_0a_1x1"), (256, 3, "Conv2d_0b_3x3")],
                384,
            ),
        ]
        with tf1.variable_scope("Branch_2"):
            towers.append(_max_pool(net, "MaxPool_1a_3x3"))
        return tf.concat(towers, axis=3)


def _mixed_7a(layers: _Layers, net: tf.Tensor) -> tf.Tensor:
    first = (256, 1, "Conv2d_0a_1x1")
    with tf1.variable_scope("Mixed_7a"):
        towers = [
            _reduction(layers, net, "Branch_0", [first], 384),
            _reduction(layers, net, "Branch_1", [first], 288),
            _reduction(layers, net, "Branch_2", [first, (288, 3, "Conv2d_0b_3x3")], 320),
        ]
        with tf1.variable_scope("Branch_3"):
            towers.append(_max_pool(net, "MaxPool_1a_3x3"))
        return tf.concat(towers, axis=3)


def _reduction(
    layers: _Layers,
    net: tf.Tensor,
    scope: str,
    convs: Sequence[tuple[int, Kernel, str]],
    filters: int,
) -> tf.Tensor:
    with tf1.variable_scope(scope):
        for width, kernel, name in convs:
            net = layers.conv(net, width, kernel, name)
        return layers.conv(net, filters, 3, "Conv2d_1a_3x3", stride=2, padding="VALID")


def _block8(layers: _Layers, net: tf.Tensor, *, scale: float, activation: bool = True) -> tf.Tensor:
    return layers.residual(
        net,
        [
            [(192, 1, "Conv2d_1x1")],
            [
                (192, 1, "Conv2d_0a_1x1"),
                (224, (1, 3), "Conv2d_0b_1x3"),
                (256, (3, 1), "Conv2d_0c_3x1"),
            ],
        ],
        scale=scale,
        activation=activation,
    )


def _repeat(
    scope: str,
    name: str,
    count: int,
    net: tf.Tensor,
    block: Callable[[tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    with tf1.variable_scope(scope):
        for i in range(1, count + 1):
            with tf1.variable_scope(f"{name}_{i}"):
                net = block(net)
        return net


def _max_pool(net: tf.Tensor, name: str) -> tf.Tensor:
    return tf.nn.max_pool2d(net, 3, 2, "VALID", name=name)


def _variable(
    name: str, shape: Sequence[int], *, trainable: bool = True, regularize: bool = False
) -> Any:
    """A variable of zeros: values come from a checkpoint."""
    variable = tf1.get_variable(
        name,
        shape,
        initializer=tf1.zeros_initializer(),
        trainable=trainable,
        collections=[tf1.GraphKeys.GLOBAL_VARIABLES, tf1.GraphKeys.MODEL_VARIABLES],
        use_resource=True,
    )
    if regularize:
        loss = tf.multiply(tf.nn.l2_loss(variable), _WEIGHT_DECAY)
        tf1.add_to_collection(tf1.GraphKeys.REGULARIZATION_LOSSES, loss)
    return variable
