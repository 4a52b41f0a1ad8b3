"""A frozen float32 network in bfloat16 or float16.

Convolutions and matrix products are cast, with their weights. Operations after them stay in the
lower precision as long as that is cheap and safe. The vector itself comes out as float32, and sums
over many pixels (the pooling at the end) are taken in float32.

Networks with few channels can lose too much that way. For them there is a slower way: only full
convolutions are cast, and the tensors between them stay float32.
"""

from __future__ import annotations

from dataclasses import replace

import tensorflow as tf

from featurewire_exporter.graph.freeze import FrozenNetwork
from featurewire_exporter.graph.graph import Graph, node_of, normal, type_of, typed_inputs

_DENSE = {"Conv2D", "MatMul"}
_HEAVY = _DENSE | {"DepthwiseConv2dNative"}
_FOLLOWING = {
    "Add",
    "AddV2",
    "AvgPool",
    "BiasAdd",
    "ConcatV2",
    "Identity",
    "LeakyRelu",
    "MaxPool",
    "Mul",
    "Pad",
    "Relu",
    "Relu6",
    "Reshape",
    "Sigmoid",
    "Squeeze",
}
"""Operations that are lowered only if an input already is, because alone they gain nothing."""


def lower(
    network: FrozenNetwork, precision: str, *, float32_activations: bool = False
) -> FrozenNetwork:
    """The network in `precision`, one of `config.PRECISIONS`; its input and output stay float32.

    `float32_activations`: only convolutions and matrix products compute in it.
    """
    dtype = tf.as_dtype(precision)
    if dtype == tf.float32:
        return network
    graph = Graph(network.graph_def, output=network.output)
    if float32_activations:
        lowered = _lowered_nodes(graph, _DENSE, set())
    else:
        lowered = _lowered_nodes(graph, _HEAVY, _FOLLOWING)
    made: dict[tuple[str, bool], str] = {}
    for name in graph.order():
        node = graph.nodes[name]
        low = name in lowered
        if low:
            node.attr["T"].type = dtype.as_datatype_enum
        for i, tensor in enumerate(node.input):
            if tensor.startswith("^"):
                continue
            have = node_of(tensor) in lowered
            want = low and i in typed_inputs(node, "T")
            if want != have:
                node.input[i] = _cast(graph, tensor, want, dtype, made)
    if node_of(graph.output) in lowered:
        graph.output = normal(_cast(graph, graph.output, False, dtype, made))
    graph.prune()
    return replace(network, graph_def=graph.to_graph_def(), output=graph.output)


def _lowered_nodes(graph: Graph, always: set[str], following: set[str]) -> set[str]:
    lowered: set[str] = set()
    for name in graph.order():
        node = graph.nodes[name]
        if type_of(node) != tf.float32:
            continue
        if node.op in always or (
            node.op in following
            and any(node_of(node.input[i]) in lowered for i in typed_inputs(node, "T"))
        ):
            lowered.add(name)
    return lowered


def _cast(
    graph: Graph, tensor: str, low: bool, dtype: tf.DType, made: dict[tuple[str, bool], str]
) -> str:
    """The same values as a tensor of the other precision."""
    key = (normal(tensor), low)
    if key not in made:
        value = graph.constant(tensor)
        name = f"{node_of(tensor)}/{dtype.name if low else 'float32'}"
        if value is not None and low:
            made[key] = graph.add_constant(name, value.astype(dtype.as_numpy_dtype), dtype)
        else:
            source, target = (tf.float32, dtype) if low else (dtype, tf.float32)
            cast = graph.add(graph.free_name(name), "Cast", [tensor], SrcT=source, DstT=target)
            made[key] = cast.name
    return made[key]
