"""From a loaded module to one frozen graph: constants only, pruned to the vector."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import convert_to_constants

from featurewire_exporter.errors import ModuleError, one_line
from featurewire_exporter.graph import Graph, node_of
from featurewire_exporter.module import Module

tf1 = tf.compat.v1

_LIMIT_BYTES = 2**31 - 2**20
_TABLES = ("AnonymousHash", "AnonymousMutable", "HashTable", "LookupTable", "Mutable")
"""How the names of ops begin that hold or read tables."""


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


def freeze(module: Module) -> FrozenNetwork:
    """The module's network with its variables as constants. Raises `ModuleError`."""
    try:
        network = _from_function(module) if module.format == "SavedModel" else _from_graph(module)
    except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
        raise ModuleError(
            f"the module cannot be frozen to constants ({one_line(error)}); "
            "it may hold tables or other state than variables"
        ) from error
    _check_state(network)
    size = network.graph_def.ByteSize()
    if size >= _LIMIT_BYTES:
        raise ModuleError(
            f"the module's weights take {size / 2**30:.1f} GiB; a frozen graph "
            "can hold 2 GiB at most, so this module cannot be served as one"
        )
    return network


def _check_state(network: FrozenNetwork) -> None:
    """Raises `ModuleError` where a vector needs more than constants and the image."""
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
    """The same for a TensorFlow 1 graph, whose reference variables no function can hold."""
    with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        meta = tf1.saved_model.load(session, module.tags, module.directory)
        signature = meta.signature_def[module.signature]
        (image,) = signature.inputs.values()
        output = signature.outputs[module.output_name].name
        graph_def = tf1.graph_util.convert_variables_to_constants(
            session, graph.as_graph_def(), [node_of(output)]
        )
    return FrozenNetwork(graph_def=graph_def, input=node_of(image.name), output=output)
