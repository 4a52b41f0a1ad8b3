"""Freezes a loaded module to one graph without variables, pruned to the vector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import convert_to_constants, op_def_registry

from featurewire_exporter import photos
from featurewire_exporter.errors import ModuleError, one_line
from featurewire_exporter.graph.graph import Graph, node_of
from featurewire_exporter.source.module import Module

tf1 = tf.compat.v1

_LIMIT_BYTES = 2**31 - 2**20
_WRITES = ("Assign", "ResourceScatter", "RngSkip")
"""Prefixes of the operations that change a variable."""
_DRAWS = (
    "Multinomial",
    "ParameterizedTruncatedNormal",
    "Random",
    "Rng",
    "StatefulRandom",
    "StatefulStandardNormal",
    "StatefulTruncatedNormal",
    "StatefulUniform",
    "TruncatedNormal",
)
"""Prefixes of the stateful operations that draw random numbers."""
_TABLES = ("AnonymousHash", "AnonymousMutable", "HashTable", "LookupTable", "Mutable")
"""Prefixes of the operations that hold or read tables."""


@dataclass(frozen=True, kw_only=True)
class FrozenNetwork:
    """A network as a GraphDef without variables: one image tensor in, one vector out."""

    graph_def: Any
    input: str
    """Name of the placeholder node: float32 [N, height, width, 3] in [0, 1]."""
    output: str
    """Name of the output tensor (`node:index`): float32 [N, dimension]."""

    def constants(self) -> Iterator[np.ndarray]:
        """The arrays that the output depends on."""
        graph = Graph(self.graph_def, output=self.output)
        for name, node in graph.nodes.items():
            if node.op == "Const":
                yield graph.array(name)

    def serialized(self, row: Sequence[int]) -> bytes:
        """The GraphDef for other engines: the input's shape is `[N, *row]`."""
        graph = Graph(self.graph_def, output=self.output)
        shape = graph.nodes[self.input].attr["shape"].shape
        shape.Clear()
        for length in (-1, *row):
            shape.dim.add(size=length)
        data: bytes = graph.to_graph_def().SerializeToString()
        return data


def freeze(module: Module) -> FrozenNetwork:
    """The module's network with its variables as constants. Raises `ModuleError`."""
    try:
        network = _from_function(module) if module.format == "SavedModel" else _from_graph(module)
    except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
        raise ModuleError(
            f"the module cannot be frozen to constants ({one_line(error)}); "
            "it may hold tables or other state than variables"
        ) from error
    network = _without_writes(network, module)
    _check_state(network)
    network = _from_unit_range(network, *module.input_range)
    size = network.graph_def.ByteSize()
    if size >= _LIMIT_BYTES:
        raise ModuleError(
            f"the module's weights take {size / 2**30:.1f} GiB; a frozen graph "
            "can hold 2 GiB at most, so this module cannot be served as one"
        )
    return network


def _without_writes(network: FrozenNetwork, module: Module) -> FrozenNetwork:
    """The same network without the operations that change variables, such as a seed's counter.

    Raises `ModuleError` if a vector depends on such a variable, or on random numbers.
    """
    graph = Graph(network.graph_def, output=network.output)
    computing = graph.computing()
    writes = {name for name, node in graph.nodes.items() if node.op.startswith(_WRITES)}
    suspects = [
        (name, node.op)
        for name, node in sorted(graph.nodes.items())
        if (name in writes and computing & {name, node_of(node.input[0])})
        or (name in computing and _draws(node))
    ]
    inside = [
        (f"{body.signature.name}/{node.name}", node.op)
        for body in network.graph_def.library.function
        for node in body.node_def
        if node.op.startswith(_WRITES) or _draws(node)
    ]
    # The graph alone cannot tell: a branch that inference never takes may draw random numbers.
    if (suspects or inside) and not _repeats(module):
        raise _changing(*(suspects + inside)[0])
    if not writes:
        return network
    for node in graph.nodes.values():
        kept = [i for i in node.input if not (i.startswith("^") and node_of(i) in writes)]
        del node.input[:]
        node.input.extend(kept)
    graph.prune()
    return replace(network, graph_def=graph.to_graph_def())


def _repeats(module: Module) -> bool:
    """Whether the module gives the same vectors for the same images in several calls."""
    images = photos.probe_images(4, module.image_size)
    first = module(images)
    near = 1e-3 * float(np.abs(first).max())
    return all(np.allclose(first, module(images), rtol=0, atol=near) for _ in range(5))


def _draws(node: Any) -> bool:
    op = op_def_registry.get(node.op)
    return node.op.startswith(_DRAWS) and op is not None and op.is_stateful


def _changing(name: str, op: str) -> ModuleError:
    """`name`: the name of a node; it ends with the layer's name and its own."""
    layer = name.split("/")[-2] if "/" in name else name
    return ModuleError(
        f"the module draws random numbers or changes its variables with each call, in its layer "
        f"{layer} ({op}); save it for inference, without that layer, or in Keras with an "
        "ExportArchive whose endpoint is lambda images: model(images, training=False)"
    )


def _from_unit_range(network: FrozenNetwork, low: float, high: float) -> FrozenNetwork:
    """The same network for images in [0, 1], which it turns into [`low`, `high`] first."""
    if (low, high) == (0, 1):
        return network
    graph = Graph(network.graph_def, output=network.output)
    users = [node for node in graph.nodes.values() if network.input in map(node_of, node.input)]
    scale = graph.add_constant(f"{network.input}/scale", np.asarray(high - low, np.float32))
    scaled = graph.free_name(f"{network.input}/scaled")
    graph.add(scaled, "Mul", [network.input, scale], T=tf.float32)
    if low:
        offset = graph.add_constant(f"{network.input}/offset", np.asarray(low, np.float32))
        shifted = graph.free_name(f"{network.input}/shifted")
        graph.add(shifted, "AddV2", [scaled, offset], T=tf.float32)
        scaled = shifted
    for node in users:
        inputs = [scaled if i in (network.input, f"{network.input}:0") else i for i in node.input]
        del node.input[:]
        node.input.extend(inputs)
    graph.prune()
    return replace(network, graph_def=graph.to_graph_def())


def _check_state(network: FrozenNetwork) -> None:
    """Raises `ModuleError` if a vector depends on more than constants and the image."""
    nodes = [*Graph(network.graph_def, output=network.output).nodes.values()]
    nodes += [node for body in network.graph_def.library.function for node in body.node_def]
    tables = sorted({node.op for node in nodes if node.op.startswith(_TABLES)})
    if tables:
        raise ModuleError(
            f"the module cannot be frozen to constants (it looks up tables: {', '.join(tables)}); "
            "export it without them"
        )
    state = [node.name for node in nodes if node.op == "Placeholder" and node.name != network.input]
    if state:
        raise ModuleError(
            f"the module cannot be frozen to constants (its vectors also depend on {state[0]}); "
            "it may hold state other than variables"
        )


def _from_function(module: Module) -> FrozenNetwork:
    # The first half of `convert_variables_to_constants_v2`: its second half makes a function of
    # the result again, which takes 10 seconds for a network of the size of Inception ResNet V2.
    data = convert_to_constants._FunctionConverterDataInEager(
        func=module.function, lower_control_flow=False, aggressive_inlining=True
    )
    graph_def, _ = convert_to_constants._replace_variables_by_constants(data)
    return FrozenNetwork(
        graph_def=graph_def,
        input=module.function.inputs[0].op.name,
        output=module.function.outputs[module.output_index].name,
    )


def _from_graph(module: Module) -> FrozenNetwork:
    """Freeze a TensorFlow 1 graph, whose reference variables a function cannot contain."""
    with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        meta = tf1.saved_model.load(session, module.tags, module.directory)
        signature = meta.signature_def[module.signature]
        (image,) = signature.inputs.values()
        output = signature.outputs[module.output_name].name
        graph_def = tf1.graph_util.convert_variables_to_constants(
            session, graph.as_graph_def(), [node_of(output)]
        )
    return FrozenNetwork(graph_def=graph_def, input=node_of(image.name), output=output)
