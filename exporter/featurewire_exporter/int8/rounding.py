"""Rounds the weights of convolutions so that the output of each layer changes least.

GPTQ (Frantar et al., ICLR 2023, arXiv 2210.17323): the weights of a layer are rounded input by
input, and the weights of the remaining inputs compensate for the change, as far as inputs are
correlated. Neighbouring pixels and features are, so little error is left. Libraries have it for
PyTorch and for the matrix products of language models, but not for convolutions in OpenVINO.

The weights are then on the grid that NNCF chooses for them. Its own rounding changes only the
largest weight of a channel, which is half a step too large for 7 bits; `round_weights` fixes that.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
from numpy.lib.stride_tricks import sliding_window_view
from openvino import opset13 as operations

from featurewire_exporter.int8.openvino_network import compiled

STEPS = {8: 127.0, 7: 63.5}
"""Number of bits to steps of NNCF's grid between 0 and a channel's largest weight."""
_PICTURES, _PLACES = 64, 200
"""A layer's inputs, about 3,000 at most, are sampled at this many places of this many pictures."""
_BATCH = 4
"""Pictures at a time: the inputs of all layers of a large network take about 80 MB per picture."""
_DAMPING = 0.01
"""This fraction of the diagonal's mean is added to it, as in the paper, to make it invertible."""
_DEQUANTISING = frozenset(("Multiply", "Subtract", "Convert", "Reshape"))
"""Operations that NNCF puts between a layer and its weights in 8 bits."""


@dataclass(frozen=True)
class Reading:
    """The part of a tensor that a convolution reads. Pairs are `(height, width)`."""

    source: str
    """The tensor's name, from `_source`."""
    groups: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]

    def places(self, maps: np.ndarray, chance: np.random.Generator) -> np.ndarray:
        """`maps`: `[N, channels, height, width]`; `[groups, places, inputs]`, at random places."""
        maps = np.pad(maps, ((0, 0), (0, 0), *zip(self.before, self.after, strict=True)))
        spans = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        windows = sliding_window_view(maps, spans, axis=(2, 3))
        windows = windows[:, :, :: self.strides[0], :: self.strides[1]]
        windows = windows[..., :: self.dilations[0], :: self.dilations[1]]
        pictures, _, rows, columns = windows.shape[:4]
        count = pictures * min(_PLACES, rows * columns)
        picture, row, column = chance.integers(0, (pictures, rows, columns), (count, 3)).T
        chosen = windows[picture, :, row, column]
        return chosen.reshape(count, self.groups, -1).swapaxes(0, 1)


class Rounding:
    """Rounds the weights of a model. The inputs of its layers are sampled once."""

    def __init__(self, model: ov.Model, images: np.ndarray) -> None:
        """`images`: float32 `[N, height, width, 3]`, at least one."""
        self._model = model
        images = images[:: -(-len(images) // _PICTURES)]
        probed = model.clone()
        probed.reshape([min(_BATCH, len(images)), *images.shape[1:]])
        self._readings = {layer.get_friendly_name(): reading_of(layer) for layer in _layers(probed)}
        self._moments = _moments(probed, {*self._readings.values()}, images)
        self._levels: dict[tuple[str, int], np.ndarray] = {}

    def rounded(self, bits: int, *, but: Collection[str] = ()) -> ov.Model:
        """A copy with weights on grids of `bits`, except for the layers named in `but`."""
        model = self._model.clone()
        for layer in _layers(model):
            name = layer.get_friendly_name()
            if name in but:
                continue
            weights = layer.input_value(1).get_node().data
            moments = self._moments[self._readings[name]]
            by_group = weights.reshape(len(moments), -1, moments.shape[-1])
            # NNCF gives depthwise convolutions all 8 bits, even with its overflow fix.
            depthwise = len(moments) > 1 and weights.shape[2] == 1
            steps = STEPS[8 if depthwise else bits]
            if (name, bits) not in self._levels:
                self._levels[name, bits] = round_to_grid(by_group, moments, steps)
            magnitudes = np.abs(by_group)
            largest = magnitudes.max(axis=2, keepdims=True)
            found = self._levels[name, bits] * (largest / np.float32(steps))
            found = np.where(_first(magnitudes), by_group, found)
            _replace(layer.input(1), found.reshape(weights.shape).astype(weights.dtype))
        return model

    def round_weights(self, quantised: ov.Model, bits: int) -> None:
        """Restore the levels of `rounded` in the network that NNCF made of it."""
        for layer in convolutions(quantised):
            value = layer.input_value(1)
            while value.get_node().get_type_name() in _DEQUANTISING:
                edge, value = value.get_node().input(0), value.get_node().input_value(0)
            levels = self._levels.get((layer.get_friendly_name(), bits))
            if levels is not None and value.get_element_type() == ov.Type.i8:
                _replace(edge, levels.reshape(value.get_shape()))


def convolutions(model: ov.Model) -> list[Any]:
    """The convolutions of a model, in the order of computation."""
    kinds = {"Convolution", "GroupConvolution"}
    return [node for node in model.get_ordered_ops() if node.get_type_name() in kinds]


def round_to_grid(
    weights: np.ndarray, moments: np.ndarray, steps: float, *, block: int = 128
) -> np.ndarray:
    """Levels of each channel, in units of its largest weight / `steps`.

    `weights`: `[groups, channels, inputs]`; `moments`: `[groups, inputs, inputs]`, the second
    moments of the inputs, times any factor. int8 `[groups, channels, inputs]`. The
    remaining inputs are corrected after every `block` inputs: the same sums, in larger products.
    """
    moved = weights.astype(np.float64)
    magnitudes = np.abs(moved)
    scale = np.maximum(magnitudes.max(axis=2), np.finfo(np.float32).tiny) / steps
    most = np.floor(steps)
    largest, last = _first(magnitudes), most * np.sign(moved)
    correction = _correction(moments)
    found = np.empty_like(moved)
    inputs = moved.shape[2]
    for start in range(0, inputs, block):
        end = min(start + block, inputs)
        errors = np.empty((*moved.shape[:2], end - start))
        for at in range(start, end):
            nearest = np.clip(np.round(moved[:, :, at] / scale), -most, most)
            level = np.where(largest[:, :, at], last[:, :, at], nearest)
            factors = correction[:, at, at:end]
            error = (moved[:, :, at] - level * scale) / factors[:, :1]
            moved[:, :, at:end] -= error[..., np.newaxis] * factors[:, np.newaxis]
            found[:, :, at], errors[:, :, at - start] = level, error
        moved[:, :, end:] -= errors @ correction[:, start:end, end:]
    return found.astype(np.int8)


def _first(magnitudes: np.ndarray) -> np.ndarray:
    """True at the first of each channel's largest weights: bool, of the same shape."""
    return np.arange(magnitudes.shape[2]) == magnitudes.argmax(axis=2)[..., np.newaxis]


def _replace(edge: Any, values: np.ndarray) -> None:
    edge.replace_source_output(operations.constant(values).output(0))


def _correction(moments: np.ndarray) -> np.ndarray:
    """Factors by which later inputs compensate for each one: upper triangles, of the same shape."""
    damped = moments.astype(np.float64)
    diagonal = np.einsum("gkk->gk", damped)
    diagonal += _DAMPING * diagonal.mean(axis=1, keepdims=True) + np.finfo(np.float32).tiny
    return np.linalg.cholesky(np.linalg.inv(damped)).swapaxes(1, 2)


def _moments(
    probed: ov.Model, readings: Collection[Reading], images: np.ndarray
) -> dict[Reading, np.ndarray]:
    """Sums of products of every two inputs, float32 `[groups, inputs, inputs]`."""
    sources = {_source(layer): layer.input_value(0) for layer in _layers(probed)}
    if not sources:
        return {}
    watched = ov.Model([*sources.values()], probed.get_parameters())
    request = compiled(watched).create_infer_request()
    batch = watched.input(0).shape[0]
    chance = np.random.default_rng(0)
    found: dict[Reading, Any] = dict.fromkeys(readings, 0)
    for start in range(0, len(images) - batch + 1, batch):
        request.infer({0: images[start : start + batch]})
        maps = {name: request.get_output_tensor(at).data for at, name in enumerate(sources)}
        for reading in readings:
            places = reading.places(maps[reading.source], chance)
            found[reading] = found[reading] + places.swapaxes(1, 2) @ places
    return found


def _layers(model: ov.Model) -> list[Any]:
    """Convolutions of images whose weights are constants."""
    return [
        node
        for node in convolutions(model)
        if node.input_value(1).get_node().get_type_name() == "Constant"
        and len(node.get_attributes()["strides"]) == 2
    ]


def _source(layer: Any) -> str:
    value = layer.input_value(0)
    return f"{value.get_node().get_friendly_name()}:{value.get_index()}"


def reading_of(layer: Any) -> Reading:
    attributes, shape = layer.get_attributes(), [*layer.input_value(1).get_shape()]
    names = ("strides", "dilations", "pads_begin", "pads_end")
    return Reading(
        _source(layer),
        shape[0] if layer.get_type_name() == "GroupConvolution" else 1,
        (shape[-2], shape[-1]),
        *(tuple(attributes[name]) for name in names),
    )
