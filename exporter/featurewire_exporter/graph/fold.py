"""Folds arithmetic with constants around convolutions into their weights and one bias.

Batch normalisation, residual scales and input scaling cost time at every request and keep
TensorFlow's optimiser from fusing `Conv2D + BiasAdd + Add + Relu` into one operation. A rewrite
applies only to the structure that it knows; everything else stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from featurewire_exporter.graph.freeze import FrozenNetwork
from featurewire_exporter.graph.graph import (
    PASS_THROUGH,
    Graph,
    data_format,
    evaluate,
    has_control_inputs,
    node_of,
    normal,
    type_of,
)

_CONVOLUTIONS = {"Conv2D": 3, "DepthwiseConv2dNative": 2}
"""Axis of the weights for one scale per output channel (see `_scale_weights`)."""
_NORMS = {"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"}
_LARGEST_FOLDED_BYTES = 2**20

_NOT_ZERO = np.float32(1e-30)
"""TensorFlow's constant folder drops a bias of zeros, and without the BiasAdd its remapper no
longer recognises a residual join. A bias of this size is kept, and changes no float32 feature above
1e-22. It must be this small, because weights can make a layer's features tiny."""


@dataclass(frozen=True, kw_only=True)
class _Affine:
    """x -> scale * x + offset; both are float64 arrays with one entry per channel, or one entry."""

    scale: np.ndarray
    offset: np.ndarray

    def fits(self, channels: int) -> bool:
        """Whether the number of channels stays the same; one channel and many factors give many."""
        return {self.scale.size, self.offset.size} <= {1, channels}

    def then(self, other: _Affine) -> _Affine:
        return _Affine(
            scale=self.scale * other.scale, offset=self.offset * other.scale + other.offset
        )


_SAME = _Affine(scale=np.ones(1), offset=np.zeros(1))


def fold(network: FrozenNetwork) -> FrozenNetwork:
    """The same function with fewer operations; float32 results differ by rounding only."""
    graph = Graph(network.graph_def, output=network.output)
    _drop_idle_waits(graph)
    _drop_pass_through(graph)
    _fold_constants(graph)
    _fold_into_convolutions(graph)
    _fold_from_inputs(graph, network.input)
    _modernise(graph)
    graph.prune()
    return replace(network, graph_def=graph.to_graph_def(), output=graph.output)


def _drop_idle_waits(graph: Graph) -> None:
    """Drop control inputs that wait for operations without effect; tf.function leaves such."""
    acts: dict[str, bool] = {}
    for name in graph.order():
        node = graph.nodes[name]
        op = op_def_registry.get(node.op)
        acts[name] = op is None or op.is_stateful or any(acts[node_of(i)] for i in node.input)
        kept = [i for i in node.input if not i.startswith("^") or acts[node_of(i)]]
        if len(kept) != len(node.input):
            del node.input[:]
            node.input.extend(kept)
    graph.prune()


def _drop_pass_through(graph: Graph) -> None:
    mapping = {
        f"{node.name}:{port}": tensor
        for node in graph.nodes.values()
        if node.op in PASS_THROUGH and not has_control_inputs(node)
        for port, tensor in enumerate(node.input)
    }
    graph.redirect(mapping)
    graph.prune()


def _fold_constants(graph: Graph) -> None:
    """Replace small results of constants (such as `gamma * rsqrt(variance + epsilon)`)."""
    known: set[str] = set()
    for name in graph.order():
        node = graph.nodes[name]
        if node.op == "Const" or (_is_pure(node) and all(node_of(i) in known for i in node.input)):
            known.add(name)
    consumers = graph.consumers()
    frontier = [
        name
        for name in known
        if graph.nodes[name].op != "Const" and any(user not in known for user in consumers[name])
    ]
    if not frontier:
        return
    largest = max(_LARGEST_FOLDED_BYTES, *(_bytes(node) for node in graph.nodes.values()))
    values = evaluate(graph.to_graph_def(), [f"{name}:0" for name in frontier])
    for name, value in zip(frontier, values, strict=True):
        if value.nbytes <= largest and value.dtype.kind in "biufc":
            del graph.nodes[name]
            graph.add_constant(name, value)
    graph.prune()


def _bytes(node: Any) -> int:
    return node.attr["value"].tensor.ByteSize() if node.op == "Const" else 0


def _is_pure(node: Any) -> bool:
    op = op_def_registry.get(node.op)
    return (
        bool(node.input)
        and op is not None
        and not op.is_stateful
        and len(op.output_arg) == 1
        and not has_control_inputs(node)
    )


def _fold_into_convolutions(graph: Graph) -> None:
    """Fold what follows each convolution; the last operation of the chain becomes its BiasAdd."""
    consumers = graph.consumers()
    for name in graph.order():
        conv = graph.nodes.get(name)
        if conv is None or not _is_convolution(graph, conv):
            continue
        affine, last = _SAME, name
        channels = _output_channels(conv.op, graph.array(conv.input[1]))
        while len(consumers[last]) == 1 and consumers[last][0]:
            step = _affine_step(graph, graph.nodes[consumers[last][0]], last)
            if step is None or not step.fits(channels):
                break
            affine, last = affine.then(step), consumers[last][0]
        if last != name:
            _apply(graph, conv, affine, last)
    graph.prune()


def _apply(graph: Graph, conv: Any, affine: _Affine, last: str) -> None:
    weights = graph.array(conv.input[1])
    channels = _output_channels(conv.op, weights)
    scale = np.broadcast_to(affine.scale, [channels])
    offset = np.broadcast_to(affine.offset, [channels]).astype(np.float32)
    if not offset.any():
        offset = np.full([channels], _NOT_ZERO)
    _set_weights(graph, conv, _scale_weights(conv.op, weights, scale))
    bias = graph.add_constant(f"{conv.name}/bias_folded", offset)
    # Under the name of the chain's end, so that its consumers need no change.
    del graph.nodes[last]
    graph.add(last, "BiasAdd", [conv.name, bias], T=tf.float32).attr["data_format"].s = b"NHWC"


def _fold_from_inputs(graph: Graph, images: str) -> None:
    """Fold scaling and shifting of a convolution's input, such as [0, 1] to [-1, 1].

    One factor folds anywhere; one factor per channel folds only if the input is `images`. Another
    tensor has an unknown number of channels, and one channel times many factors gives many.
    """
    consumers = graph.consumers()
    for name in graph.order():
        conv = graph.nodes[name]
        if not _is_convolution(graph, conv) or conv.op != "Conv2D":
            continue
        affine, source = _SAME, conv.input[0]
        while (step := _affine_of_producer(graph, source)) is not None:
            before, source = step
            affine = before.then(affine)
        channels = graph.array(conv.input[1]).shape[2]
        if affine is _SAME or not affine.fits(channels if node_of(source) == images else 1):
            continue
        # Zero padding follows the shift, so a shift cannot move past it.
        if affine.offset.any() and conv.attr["padding"].s != b"VALID":
            continue
        users = consumers[name]
        bias_add = graph.nodes[users[0]] if len(users) == 1 and users[0] else None
        if bias_add is None or bias_add.op != "BiasAdd":
            continue
        bias = graph.constant(bias_add.input[1])
        if bias is None:
            continue
        weights = graph.array(conv.input[1])
        shift = np.broadcast_to(affine.offset, [channels])
        moved = bias + np.einsum("hwio,i->o", weights, shift)
        scaled = (
            weights * np.broadcast_to(affine.scale, [channels]).astype(np.float32)[:, np.newaxis]
        )
        _set_weights(graph, conv, scaled)
        conv.input[0] = source
        bias_add.input[1] = graph.add_constant(f"{conv.name}/bias_folded", moved.astype(np.float32))
    graph.prune()


def _affine_of_producer(graph: Graph, tensor: str) -> tuple[_Affine, str] | None:
    node = graph.nodes[node_of(tensor)]
    for source in node.input[:2]:
        step = _affine_step(graph, node, node_of(source))
        if step is not None and graph.constant(source) is None:
            return step, source
    return None


def _affine_step(graph: Graph, node: Any, source: str) -> _Affine | None:
    """The affine function per channel that `node` applies to the output of `source`, or None."""
    if has_control_inputs(node) or type_of(node) != tf.float32:
        return None
    if node.op in _NORMS:
        return _norm_step(graph, node, source)
    if node.op not in ("Add", "AddV2", "BiasAdd", "Sub", "Mul", "RealDiv") or len(node.input) != 2:
        return None
    if node.op == "BiasAdd" and data_format(node) == b"NCHW":
        return None
    inputs = [normal(tensor) for tensor in node.input]
    if f"{source}:0" not in inputs:
        return None
    position = inputs.index(f"{source}:0")
    value = graph.constant(inputs[1 - position])
    if value is None or value.ndim > 4 or value.size not in (1, *value.shape[-1:]):
        return None
    value = value.astype(np.float64).reshape(-1)
    if node.op in ("Add", "AddV2", "BiasAdd"):
        return replace(_SAME, offset=value)
    if node.op == "Sub":
        return (
            replace(_SAME, offset=-value)
            if position == 0
            else _Affine(scale=-np.ones(1), offset=value)
        )
    if node.op == "Mul":
        return replace(_SAME, scale=value)
    return replace(_SAME, scale=1.0 / value) if position == 0 and value.all() else None


def _norm_step(graph: Graph, node: Any, source: str) -> _Affine | None:
    if (
        node.attr["is_training"].b
        or data_format(node) == b"NCHW"
        or normal(node.input[0]) != f"{source}:0"
    ):
        return None
    values = [graph.constant(tensor) for tensor in node.input[1:5]]
    known = [value.astype(np.float64) for value in values if value is not None]
    if len(known) < len(values):
        return None
    gamma, beta, mean, variance = known
    scale = gamma / np.sqrt(variance + node.attr["epsilon"].f)
    return _Affine(scale=scale, offset=beta - mean * scale)


def _is_convolution(graph: Graph, node: Any) -> bool:
    return (
        node.op in _CONVOLUTIONS
        and type_of(node) == tf.float32
        and data_format(node) != b"NCHW"
        and not has_control_inputs(node)
        and graph.constant(node.input[1]) is not None
    )


def _output_channels(op: str, weights: np.ndarray) -> int:
    return weights.shape[3] if op == "Conv2D" else weights.shape[2] * weights.shape[3]


def _scale_weights(op: str, weights: np.ndarray, scale: np.ndarray) -> np.ndarray:
    scale = scale.astype(np.float32)
    # A depthwise convolution numbers its outputs by input channel, then by multiplier.
    return weights * (scale if op == "Conv2D" else scale.reshape(weights.shape[2:]))


def _set_weights(graph: Graph, conv: Any, weights: np.ndarray) -> None:
    """Weights may be shared with another node, so they are replaced, not changed."""
    conv.input[1] = graph.add_constant(f"{conv.name}/weights_folded", weights.astype(np.float32))


def _modernise(graph: Graph) -> None:
    """`AddV2` for `Add`, which the optimiser treats as a string operation's sibling."""
    for node in graph.nodes.values():
        if node.op == "Add" and type_of(node) == tf.float32:
            node.op = "AddV2"
