"""Weights are rounded so that a layer's output changes least."""

from __future__ import annotations

import signal

import numpy as np
import pytest

from featurewire_exporter.int8 import openvino_network, quantise
from featurewire_exporter.int8.rounding import (
    STEPS,
    Rounding,
    convolutions,
    reading_of,
    round_to_grid,
)

SIDE = 33
EIGHT_BITS = quantise.Setting(name="8 bits")
SEVEN_BITS = quantise.Setting(name="7 bits", overflow_fix=True)


def correlated(groups: int, inputs: int) -> np.ndarray:
    """Samples of correlated inputs: float64 [groups, 4000, inputs]."""
    random = np.random.default_rng(0)
    common = random.normal(size=(groups, 4000, 3)) @ random.normal(size=(groups, 3, inputs))
    return common + 0.1 * random.normal(size=common.shape)


def weights_of(groups: int, inputs: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(groups, 7, inputs)).astype(np.float32)


def nearest(weights: np.ndarray, steps: float) -> np.ndarray:
    """Round each weight to the nearest level, like NNCF's symmetric quantiser."""
    scale = np.abs(weights).max(axis=2, keepdims=True) / steps
    return np.round(weights / scale) * scale


@pytest.mark.parametrize("steps", STEPS.values())
@pytest.mark.parametrize("inputs", [30, 300])
def test_what_a_layer_gives_changes_less_than_by_rounding_each_weight(steps, inputs):
    read, weights = correlated(2, inputs), weights_of(2, inputs)
    levels = round_to_grid(weights, read.swapaxes(1, 2) @ read, steps)
    found = levels * (np.abs(weights).max(axis=2, keepdims=True) / steps)
    exact = read @ weights.swapaxes(1, 2)
    errors = [
        np.square(read @ each.swapaxes(1, 2) - exact).mean()
        for each in (found, nearest(weights, steps))
    ]
    assert errors[0] < errors[1] / 3


@pytest.mark.parametrize(("steps", "last"), [(STEPS[8], 127), (STEPS[7], 63)])
def test_the_largest_weight_has_the_last_level(steps, last):
    read, weights = correlated(2, 300), weights_of(2, 300)
    levels = round_to_grid(weights, read.swapaxes(1, 2) @ read, steps)
    largest = np.abs(weights).argmax(axis=2)[..., np.newaxis]
    signs = np.sign(np.take_along_axis(weights, largest, 2))
    np.testing.assert_array_equal(np.take_along_axis(levels, largest, 2), last * signs)
    assert np.abs(levels.astype(int)).max() == last


def test_a_group_is_rounded_as_if_it_stood_alone():
    read, weights = correlated(3, 20), weights_of(3, 20)
    moments = read.swapaxes(1, 2) @ read
    alone = [round_to_grid(weights[i : i + 1], moments[i : i + 1], STEPS[8]) for i in range(3)]
    together = round_to_grid(weights, moments, STEPS[8])
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_correcting_by_blocks_gives_the_same():
    read, weights = correlated(1, 300), weights_of(1, 300)
    moments = read.swapaxes(1, 2) @ read
    by_blocks = round_to_grid(weights, moments, STEPS[8], block=128)
    at_once = round_to_grid(weights, moments, STEPS[8], block=300)
    np.testing.assert_array_equal(by_blocks, at_once)


def test_inputs_and_channels_of_zeros_can_be_rounded():
    weights = weights_of(1, 9)
    weights[0, 2] = 0
    found = round_to_grid(weights, np.zeros((1, 9, 9), np.float32), STEPS[8])
    each = nearest(np.where(weights, weights, 1), STEPS[8])
    scale = np.abs(weights).max(axis=2, keepdims=True) / STEPS[8]
    np.testing.assert_allclose(found * scale, np.where(weights, each, 0), atol=1e-6)


@pytest.fixture(scope="module")
def model():
    """Convolutions with strides, dilation, groups and both kinds of padding."""
    import openvino as ov
    from openvino import opset13 as op

    random = np.random.default_rng(2)

    def constant(*shape):
        return op.constant((random.normal(size=shape) / np.sqrt(shape[1])).astype(np.float32))

    images = op.parameter([-1, SIDE, SIDE, 3], np.float32, name="images")
    maps = op.transpose(images, op.constant([0, 3, 1, 2]))
    none = [0, 0]
    maps = op.convolution(maps, constant(8, 3, 3, 3), [2, 2], none, none, [1, 1], "same_upper")
    maps = op.relu(maps)
    depthwise = constant(8, 1, 1, 3, 3)
    maps = op.group_convolution(maps, depthwise, [1, 1], [1, 0], [1, 2], [1, 1])
    maps = op.relu(op.add(maps, op.constant(np.full((1, 8, 1, 1), 0.5, np.float32))))
    grouped = constant(4, 2, 2, 3, 3)
    maps = op.group_convolution(maps, grouped, [1, 1], none, none, [1, 1], "same_lower")
    maps = op.relu(op.add(maps, op.constant(np.full((1, 8, 1, 1), 0.5, np.float32))))
    maps = op.convolution(maps, constant(16, 8, 3, 5), [1, 2], none, none, [2, 1], "valid")
    maps = op.relu(op.add(maps, op.constant(np.full((1, 16, 1, 1), 0.5, np.float32))))
    found = ov.Model([op.reduce_mean(maps, op.constant([2, 3]))], [images], "small")
    for number, layer in enumerate(convolutions(found)):
        layer.set_friendly_name(f"layer{number}")
    return found


@pytest.fixture(scope="module")
def images():
    """float32 [24, SIDE, SIDE, 3]: smooth images with different brightness."""
    random = np.random.default_rng(3)
    rows = np.cumsum(random.normal(size=(24, SIDE, SIDE, 3)), axis=1)
    found = np.cumsum(rows, axis=2)
    found -= found.min(axis=(1, 2, 3), keepdims=True)
    found *= random.uniform(0.3, 1, size=(24, 1, 1, 1)) / found.max(axis=(1, 2, 3), keepdims=True)
    return found.astype(np.float32)


def test_what_a_layer_reads_is_what_it_multiplies(model, images):
    """Each sampled patch times the weights equals the layer's output at some position."""
    import openvino as ov

    probed = model.clone()
    probed.reshape([4, *images.shape[1:]])
    for layer in convolutions(probed):
        ends = ov.Model([layer.input_value(0), layer.output(0)], probed.get_parameters())
        maps, given = openvino_network.compiled(ends)(images[:4]).values()
        reading = reading_of(layer)
        places = reading.places(maps, np.random.default_rng(0))
        weights = layer.input_value(1).get_node().data.reshape(reading.groups, -1, places.shape[2])
        computed = np.concatenate([*(places @ weights.swapaxes(1, 2))], axis=1)
        somewhere = given.swapaxes(0, 1).reshape(given.shape[1], -1).T
        distances = np.abs(computed[:100, np.newaxis] - somewhere).max(axis=2).min(axis=1)
        assert distances.max() < 1e-3 * np.abs(somewhere).max()


@pytest.fixture(scope="module")
def quantiser(model, images):
    return quantise.Quantiser(model, images)


@pytest.mark.parametrize("setting", [EIGHT_BITS, SEVEN_BITS], ids=lambda setting: setting.name)
def test_nncf_keeps_the_levels(model, images, quantiser, setting):
    rounded = Rounding(model, images).rounded(7 if setting.overflow_fix else 8)
    quantised = quantiser.quantise(setting)
    for before, after in zip(*map(convolutions, (rounded, quantised)), strict=True):
        constant = after.input_value(1).get_node()
        scales = []
        while constant.get_type_name() != "Constant":
            if constant.get_type_name() == "Multiply":
                scales.append(constant.input_value(1).get_node().data)
            constant = constant.input_value(0).get_node()
        assert constant.data.dtype == np.int8
        [scale] = scales
        given = constant.data * scale
        meant = before.input_value(1).get_node().data
        # The highest level of 7 bits is half a step below the largest weight.
        tolerance = scale * (0.5 if setting.overflow_fix else 0) + 1e-6
        assert (np.abs(given - meant) <= tolerance).all()
        assert np.isclose(given, meant, atol=1e-6).mean() > 0.9


def test_vectors_are_right_in_the_mean_of_the_pictures_that_calibrate(model, images, quantiser):
    quantised = quantiser.quantise(SEVEN_BITS)
    exact, found = (openvino_network.vectors(each, images) for each in (model, quantised))
    assert not np.allclose(exact, found, atol=1e-4)
    np.testing.assert_allclose(exact.mean(axis=0), found.mean(axis=0), atol=1e-5)


def test_ctrl_c_still_interrupts_after_a_quantisation(quantiser):
    """NNCF may take away the stack that signals are handled on; then the process would end here."""
    quantiser.quantise(SEVEN_BITS)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_layers_left_in_float_keep_their_weights(model, images):
    weights = [
        layer.input_value(1).get_node().data
        for each in (model, Rounding(model, images).rounded(8, but=["layer1"]))
        for layer in convolutions(each)
    ]
    same = [np.array_equal(a, b) for a, b in zip(weights[:4], weights[4:], strict=True)]
    assert same == [False, True, False, False]


def test_a_network_without_convolutions_stays_as_it_is(images):
    import openvino as ov
    from openvino import opset13 as op

    entry = op.parameter([-1, SIDE, SIDE, 3], np.float32)
    model = ov.Model([op.reduce_mean(entry, op.constant([1, 2]))], [entry], "mean")
    rounding = Rounding(model, images)
    rounded = rounding.rounded(8)
    rounding.round_weights(rounded, 8)
    exact, found = (openvino_network.vectors(each, images) for each in (model, rounded))
    np.testing.assert_array_equal(exact, found)
