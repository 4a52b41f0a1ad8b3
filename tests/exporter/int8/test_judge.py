"""The metric that accuracy control gets, and the layers that it moves back to float."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import numpy as np
import pytest

from featurewire_exporter.graph.fold import fold
from featurewire_exporter.graph.freeze import freeze
from featurewire_exporter.int8 import openvino_network, quantise
from featurewire_exporter.int8.config import Int8Config
from featurewire_exporter.int8.judge import Judge
from featurewire_exporter.int8.rounding import convolutions
from featurewire_exporter.source.module import load_module
from tests.support.learned import write_learned_module

PICTURES = 30
CONFIG = Int8Config()
BLOCKS = 5
"""Number of blocks of Lite0 to keep; the network then has 15 convolutions."""


def network(noise: float):
    """Turns images into vectors of their 48 values plus noise."""

    def run(images):
        flat = images.reshape(len(images), -1)
        return [flat + noise * np.random.default_rng(1).normal(size=flat.shape)]

    return run


@pytest.fixture
def judge():
    random = np.random.default_rng(0)
    pictures = random.normal(size=(PICTURES, 1, 4, 4, 3)) + np.zeros((1, 3, 1, 1, 1))
    crops = pictures + 0.1 * random.normal(size=pictures.shape)
    return Judge(crops.astype(np.float32), network(0), CONFIG, lambda _text: None)


@pytest.mark.parametrize("noise", [0, 0.02, 0.05, 0.1, 0.2, 0.5, 2.0])
def test_the_metric_is_1_only_if_the_gate_passes(judge, noise):
    metric, each = judge.validate(network(noise), range(PICTURES))
    measured = judge.measure(network(noise))
    assert metric <= 1
    assert (metric == 1) == measured.passes(CONFIG)
    assert len(each) == PICTURES
    assert np.mean(each) == pytest.approx(1 / np.sqrt(1 + noise**2), abs=0.02)


def test_the_metric_says_what_the_tightest_condition_misses(judge):
    measured = judge.measure(network(0.2))
    assert measured.overlap_at_10 - 0.97 < measured.cosine - 0.99 < 0
    metric, _ = judge.validate(network(0.2), range(PICTURES))
    assert metric == pytest.approx(1 + measured.overlap_at_10 - 0.97)


def test_a_step_that_makes_it_worse_counts_as_no_gain(judge):
    better, _ = judge.validate(network(0.2), range(PICTURES))
    worse, _ = judge.validate(network(0.5), range(PICTURES))
    assert worse == better
    assert judge.validate(network(0), range(PICTURES))[0] == 1


def test_a_few_pictures_are_told_apart_by_their_cosine(judge):
    metrics = [judge.validate(network(noise), [3, 9])[0] for noise in (0.5, 0.1, 0)]
    assert metrics == sorted(metrics)
    assert metrics[-1] == pytest.approx(1)


def cut(weights: dict[str, np.ndarray]) -> None:
    """Keep the first blocks of Lite0, and the part of its head that fits their output."""
    last = weights[f"_blocks.{BLOCKS - 1}._project_conv.weight"]
    for name in [*weights]:
        block = re.match(r"_blocks\.(\d+)\.", name)
        if block and int(block[1]) >= BLOCKS:
            del weights[name]
    weights["_conv_head.weight"] = weights["_conv_head.weight"][:, : len(last)]


def in_float(model) -> int:
    """Number of convolutions with a float input."""
    return sum(
        node.input_value(0).get_node().get_type_name() != "FakeQuantize"
        for node in convolutions(model)
    )


@pytest.mark.slow
def test_layers_go_back_to_float_until_the_accuracy_gate_passes(photos, tmp_path: Path, capfd):
    import tensorflow as tf

    module = load_module(str(write_learned_module(tmp_path / "module", change=cut)))
    model = openvino_network.read(fold(freeze(module)), module.image_size, tmp_path)
    pixels = [tf.io.decode_jpeg(path.read_bytes(), channels=3).numpy() for path in photos]
    random = np.random.default_rng(0)
    views = []
    for number in range(60):
        picture = pixels[number // 3 % len(pixels)] / np.float32(255)
        top, left = (random.integers(side - 224) for side in picture.shape[:2])
        views.append(picture[top : top + 224, left : left + 224])
    images = np.stack(views)
    judged = images[:36].reshape(12, 3, 224, 224, 3)
    compiled = openvino_network.compiled(model)

    controlled = quantise.Setting(name="controlled", overflow_fix=True, accuracy_control=True)
    lenient = Int8Config(min_cosine=0.1, min_overlap_at_10=0.1, max_recall_loss=1.0)
    judge = Judge(judged, compiled, lenient, lambda _text: None)
    before = quantise.Quantiser(model, images[36:], judge).quantise(controlled)
    measured = judge.measure(openvino_network.compiled(before))

    # Require half of the loss in cosine back.
    config = Int8Config(
        min_cosine=(1 + measured.cosine) / 2, min_overlap_at_10=0.1, max_recall_loss=1.0
    )
    assert not measured.passes(config)
    said: list[str] = []
    judge = Judge(judged, compiled, config, said.append)
    after = quantise.Quantiser(model, images[36:], judge).quantise(controlled)
    assert judge.measure(openvino_network.compiled(after)).passes(config)
    assert in_float(before) < in_float(after) < in_float(model)
    assert "Below the gate by" in said[0]
    assert capfd.readouterr().out == ""
    # NNCF must keep the stack for signal handlers; without it the process ends here.
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
