"""Splits an artifact's graph into the network and everything around it.

Importing this module imports TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import graph_pb2, node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2

from featurewire._tfs.meta_graph_pb2 import SignatureDef
from featurewire.manifest.network import Split
from featurewire_server.engines.engine import Unsuitable

_PLACEHOLDERS = {"Placeholder", "PlaceholderV2", "PlaceholderWithDefault"}
_PASS_THROUGH = {"Identity", "EnsureShape", "Merge"}
"""Operations that forward their first input. The first input of a Merge is the network's output,
the second a substitute for batches without images."""


@dataclass(kw_only=True)
class Halves:
    """An artifact split into two graphs. Tensors are named `node:index`."""

    signatures: Mapping[str, SignatureDef]
    network: bytes
    """A serialized GraphDef: a placeholder, constants, operations."""
    network_input_shape: tuple[int, ...]
    """The shape of one row: height, width, channels."""
    network_source: str
    """The tensor of `around` that is the network's input."""
    network_output: str
    """The network's output tensor, for which `around` has a placeholder."""
    around: Any
    """A GraphDef with all signatures, but without the network."""
    tails: Mapping[str, Mapping[str, tuple[str, ...]]]
    """Signature key to output alias to preprocessing tensors, for outputs that depend on the
    network: the tensors that such an output needs in addition to `network_output`."""


def take_apart(path: Path, tags: Iterable[str], split: Split) -> Halves:
    """Split the SavedModel at `path`. Raises Unsuitable if `split` does not match its graph."""
    meta = _meta_graph(path, tags)
    signatures = {
        key: SignatureDef.FromString(definition.SerializeToString())
        for key, definition in meta.signature_def.items()
    }
    try:
        source = normal(signatures[split.network].inputs[split.input].name)
        output = normal(signatures[split.network].outputs[split.output].name)
        known = {normal(info.name) for info in signatures[split.preprocess].outputs.values()}
    except KeyError as error:
        raise Unsuitable(f"its graph has no signature {error}") from None
    graph = _Graph(meta.graph_def)
    entry = graph.nodes[node_of(source)]
    if entry.op != "PlaceholderWithDefault" or not _needs_only(
        graph, entry.input[0], signatures[split.preprocess]
    ):
        raise Unsuitable("its network does not start at the end of its preprocessing")
    shape = tuple(dim.size for dim in entry.attr["shape"].shape.dim[1:])
    if not shape or min(shape) < 1:
        raise Unsuitable("the size of its network's input is not fixed")
    network = _network(graph, entry, output, shape)
    graph.cut(node_of(output))
    tails = _tails(graph, signatures, split, known, output)
    return Halves(
        signatures=signatures,
        network=network,
        network_input_shape=shape,
        network_source=normal(entry.input[0]),
        network_output=output,
        around=_around(graph, signatures),
        tails=tails,
    )


def normal(tensor: str) -> str:
    """A tensor's full name: `node:0` for `node`."""
    return tensor if ":" in tensor else f"{tensor}:0"


def node_of(tensor: str) -> str:
    return tensor.lstrip("^").rsplit(":", 1)[0]


def _meta_graph(path: Path, tags: Iterable[str]) -> Any:
    try:
        data = (path / "saved_model.pb").read_bytes()
        saved_model = saved_model_pb2.SavedModel.FromString(data)
    except Exception:  # the TensorFlow engine reports the reason
        raise Unsuitable("its saved_model.pb cannot be read") from None
    for meta in saved_model.meta_graphs:
        if set(meta.meta_info_def.tags) == set(tags):
            if {"saved_model_main_op", "legacy_init_op"} & set(meta.collection_def) or any(
                key.startswith("__") for key in meta.signature_def
            ):
                raise Unsuitable("its graph has to be initialised")
            return meta
    raise Unsuitable(f"it has no meta graph tagged {', '.join(tags)}")


class _Graph:
    """The nodes of a GraphDef by name."""

    def __init__(self, graph_def: Any) -> None:
        self.versions = graph_def.versions
        self.library = graph_def.library
        self.nodes: dict[str, Any] = {node.name: node for node in graph_def.node}

    def ancestors(self, tensors: Iterable[str], stop: Iterable[str] = ()) -> dict[str, None]:
        """Names of all nodes that `tensors` depend on, in the order found.

        Includes the nodes in `stop`, but not the nodes that only these depend on.
        """
        stop = set(stop)
        found: dict[str, None] = {}
        waiting = [node_of(tensor) for tensor in tensors]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found[name] = None
                if name not in stop:
                    waiting.extend(node_of(tensor) for tensor in self.nodes[name].input)
        return found

    def cut(self, name: str) -> None:
        """Replace the node `name`, which has one float output, by a placeholder."""
        placeholder = node_def_pb2.NodeDef(name=name, op="Placeholder")
        placeholder.attr["dtype"].type = tf.float32.as_datatype_enum
        placeholder.attr["shape"].shape.unknown_rank = True
        self.nodes[name] = placeholder


def _behind_switch(graph: _Graph, entry: Any) -> Any:
    """The first node of the network.

    This is the node after the switch that skips the network for empty batches, or else `entry`.
    """
    for node in graph.nodes.values():
        if node.op == "Identity":
            before = graph.nodes[node_of(node.input[0])]
            if before.op == "Switch" and node_of(before.input[0]) == entry.name:
                return node
    return entry


def _needs_only(graph: _Graph, tensor: str, signature: SignatureDef) -> bool:
    """Whether `tensor` depends on the inputs of the signature only."""
    given = {node_of(info.name) for info in signature.inputs.values()}
    names = graph.ancestors([tensor])
    return {name for name in names if graph.nodes[name].op in _PLACEHOLDERS} <= given


def _network(graph: _Graph, entry: Any, output: str, shape: tuple[int, ...]) -> bytes:
    """The nodes from `entry` to `output` as a separate, serialized GraphDef."""
    end = graph.nodes[node_of(output)]
    while end.op in _PASS_THROUGH:  # they do not compute, so OpenVINO does not need them
        end = graph.nodes[node_of(end.input[0])]
    entry = _behind_switch(graph, entry)
    names = graph.ancestors([end.name], stop=[entry.name])
    if entry.name not in names:
        raise Unsuitable("its network's output does not depend on its input")
    functions = {function.signature.name for function in graph.library.function}
    alone = graph_pb2.GraphDef(versions=graph.versions)
    for name in names:
        node = graph.nodes[name]
        if name == entry.name:
            placeholder = alone.node.add(name=name, op="Placeholder")
            placeholder.attr["dtype"].type = tf.float32.as_datatype_enum
            for size in (-1, *shape):
                placeholder.attr["shape"].shape.dim.add(size=size)
            continue
        if node.op in _PLACEHOLDERS:
            raise Unsuitable(f"its network needs another input, {name}")
        if node.op in functions or node.op.startswith(("VarHandle", "Variable", "ReadVariable")):
            raise Unsuitable(f"its network has a node of type {node.op}")
        alone.node.append(node)
    network: bytes = alone.SerializeToString()
    return network


def _tails(
    graph: _Graph,
    signatures: Mapping[str, SignatureDef],
    split: Split,
    known: set[str],
    output: str,
) -> dict[str, dict[str, tuple[str, ...]]]:
    """The value of Halves.tails. Raises Unsuitable if the halves cannot answer a signature."""
    tails: dict[str, dict[str, tuple[str, ...]]] = {}
    preprocess_inputs = {info.name for info in signatures[split.preprocess].inputs.values()}
    for key, signature in signatures.items():
        if key == split.network:
            if [*signature.outputs] != [split.output]:
                raise Unsuitable(f"its signature {key} has several outputs")
            continue
        for alias, info in signature.outputs.items():
            tensor = normal(info.name)
            if node_of(output) not in graph.ancestors([tensor]):
                continue
            if {i.name for i in signature.inputs.values()} != preprocess_inputs:
                raise Unsuitable(f"its signature {key} does not take what its preprocessing takes")
            names = graph.ancestors([tensor], stop=map(node_of, known))
            needed = tuple(sorted(t for t in known if node_of(t) in names))
            ends = set(map(node_of, needed)) | {node_of(output)}
            if any(graph.nodes[n].op in _PLACEHOLDERS for n in names if n not in ends):
                raise Unsuitable(f"its signature {key} needs more than its preprocessing gives")
            tails.setdefault(key, {})[alias] = needed
    return tails


def _around(graph: _Graph, signatures: Mapping[str, SignatureDef]) -> Any:
    tensors = [
        info.name
        for signature in signatures.values()
        for side in (signature.inputs, signature.outputs)
        for info in side.values()
    ]
    names = graph.ancestors(tensors)
    around = graph_pb2.GraphDef(versions=graph.versions, library=graph.library)
    around.node.extend(graph.nodes[name] for name in names)
    return around
