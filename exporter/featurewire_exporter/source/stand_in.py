"""The stand-in module: Inception ResNet V2 in TF1 Hub format with seeded random weights.

It is for machines that cannot reach the hub. Its vectors have the right shape, cost and
determinism, but no learned meaning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from featurewire_exporter.source.network import FULL_SIZE, SCOPE, Size
from featurewire_exporter.source.network_module import variable_shapes, write_network_module

NAME = "stand-in"
SEED = 20160830
NOTICE = "assets.extra/stand_in.txt"
"""A file of the module, so that copies and archives of it are recognised as the stand-in."""


def write_stand_in(directory: Path, *, seed: int = SEED, size: Size = FULL_SIZE) -> Path:
    """Write the module into `directory` (created) and return it. Takes some seconds.

    A smaller `size` has the same structures, and is made and exported in a fraction of the time.
    """
    variables = dict(stand_in_variables(variable_shapes(size), seed=seed))
    write_network_module(directory, variables, size=size)
    notice = directory / NOTICE
    notice.parent.mkdir()
    notice.write_text("Random weights: shape, cost and determinism, no learned meaning.\n")
    return directory


def is_stand_in(directory: str) -> bool:
    """Whether `write_stand_in` made the module in `directory`."""
    return tf.io.gfile.exists(f"{directory}/{NOTICE}")


def stand_in_variables(
    shapes: Mapping[str, tuple[int, ...]], *, seed: int = SEED
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and float32 value of each variable: the same on every machine for one seed.

    Filters sum to zero, so that the positive mean of ReLU outputs does not hide the differences
    between images, and their gain keeps a unit variance from layer to layer. Moving statistics and
    biases differ from 1 and 0, so that an error in folding them shows, and so that TensorFlow's
    optimiser keeps every addition, as with trained weights.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    for name, shape in shapes.items():
        yield name, _value(random, name, shape).astype(np.float32, copy=False)


def _value(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    kind = name.rsplit("/", 1)[1]
    if kind == "moving_variance":
        # The residual sums have grown by the last layer; trained statistics include that.
        scale = 8.0 if name.startswith(f"{SCOPE}/Conv2d_7b") else 1.0
        return scale * random.uniform(0.5, 1.5, shape)
    if kind != "weights":
        return 0.1 * random.standard_normal(shape)
    weights = random.standard_normal(shape, dtype=np.float32)
    fan_in = np.prod(shape[:3])
    if name.startswith(f"{SCOPE}/Conv2d_1a"):
        return weights * np.float32(np.sqrt(3.0 / fan_in))
    weights -= weights.mean(axis=(0, 1, 2))
    # relu(z) of a standard normal z has the variance 1/2 - 1/(2 pi) = 0.34.
    gain = np.sqrt(1.0 / (0.34 * fan_in))
    if name.endswith("/Conv2d_1x1/weights") and "/Branch_" not in name:
        # Residual branches add less than what they join, as in trained networks: at full gain
        # forty of them amplify rounding, and bfloat16 would lose more here than it does there.
        gain *= 0.5
    return weights * np.float32(gain)
