"""A GraphDef that can be rewritten: nodes by name, their consumers, their constants."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2, node_def_pb2
from tensorflow.python.framework import op_def_registry

PASS_THROUGH = {"Identity", "IdentityN", "PreventGradient", "Snapshot", "StopGradient"}
"""Operations whose outputs are their inputs, one for one."""


class Graph:
    """Nodes of one GraphDef that `output` needs. Constants are read once and kept as arrays."""

    def __init__(self, graph_def: Any, *, output: str) -> None:
        self.versions = graph_def.versions
        self.library = graph_def.library
        self.output = output
        """The tensor that must stay: `node:index`."""
        self.nodes: dict[str, Any] = {node.name: _free(node) for node in graph_def.node}
        self._arrays: dict[str, np.ndarray] = {}
        self.prune()

    def to_graph_def(self) -> Any:
        graph_def = graph_pb2.GraphDef(versions=self.versions, library=self.library)
        graph_def.node.extend(self.nodes[name] for name in self.order())
        return graph_def

    def order(self) -> list[str]:
        """Names in topological order, inputs first."""
        order: list[str] = []
        opened: set[str] = set()
        done: set[str] = set()
        stack = [node_of(self.output)]
        while stack:
            name = stack[-1]
            waiting = [p for p in map(node_of, self.nodes[name].input) if p not in done]
            if waiting and name not in opened:
                opened.add(name)
                stack.extend(waiting)
                continue
            stack.pop()
            if name not in done:
                done.add(name)
                order.append(name)
        return order

    def computing(self) -> set[str]:
        """Names of the nodes that the output is computed from, without control inputs."""
        found: set[str] = set()
        stack = [node_of(self.output)]
        while stack:
            name = stack.pop()
            if name not in found:
                found.add(name)
                inputs = self.nodes[name].input
                stack.extend(node_of(tensor) for tensor in inputs if not tensor.startswith("^"))
        return found

    def prune(self) -> None:
        """Drop what the output does not need."""
        needed = set(self.order())
        self.nodes = {name: node for name, node in self.nodes.items() if name in needed}

    def consumers(self) -> dict[str, list[str]]:
        """Node names by the node whose outputs they use; the graph's output counts as one."""
        consumers = defaultdict(list)
        consumers[node_of(self.output)].append("")
        for name, node in self.nodes.items():
            for tensor in node.input:
                consumers[node_of(tensor)].append(name)
        return consumers

    def constant(self, tensor: str) -> np.ndarray | None:
        """The value of a tensor if it is a Const; else None."""
        node = self.nodes[node_of(tensor)]
        if node.op != "Const" or tensor.startswith("^"):
            return None
        if node.name not in self._arrays:
            self._arrays[node.name] = tf.make_ndarray(node.attr["value"].tensor)
        return self._arrays[node.name]

    def array(self, tensor: str) -> np.ndarray:
        """The value of a tensor that is a Const."""
        value = self.constant(tensor)
        assert value is not None
        return value

    def add_constant(self, name: str, value: np.ndarray, dtype: tf.DType | None = None) -> str:
        """Add a Const node under `name` or, where that is taken, a name made from it."""
        dtype = tf.as_dtype(dtype or value.dtype)
        node = node_def_pb2.NodeDef(name=self.free_name(name), op="Const")
        node.attr["dtype"].type = dtype.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, dtype=dtype))
        self.nodes[node.name] = node
        return node.name

    def add(self, name: str, op: str, inputs: Sequence[str], **types: tf.DType) -> Any:
        """Add a node with type attributes; its name must be free."""
        node = node_def_pb2.NodeDef(name=name, op=op, input=inputs)
        for key, dtype in types.items():
            node.attr[key].type = dtype.as_datatype_enum
        self.nodes[name] = node
        return node

    def free_name(self, name: str) -> str:
        candidate, count = name, 0
        while candidate in self.nodes:
            count += 1
            candidate = f"{name}_{count}"
        return candidate

    def redirect(self, mapping: dict[str, str]) -> None:
        """Replace the tensors on the left by those on the right, in every consumer."""

        def target(tensor: str) -> str:
            while normal(tensor) in mapping:
                tensor = mapping[normal(tensor)]
            return tensor

        for node in self.nodes.values():
            for i, tensor in enumerate(node.input):
                node.input[i] = target(tensor)
        self.output = normal(target(self.output))


def _free(node: Any) -> Any:
    """A copy without placement and internal attributes; the server decides where it runs."""
    copy = node_def_pb2.NodeDef()
    copy.CopyFrom(node)
    copy.ClearField("device")
    for key in [key for key in copy.attr if key.startswith("_")]:
        del copy.attr[key]
    return copy


def node_of(tensor: str) -> str:
    """Name of the node of a tensor, or of a control input (with a leading `^`)."""
    return tensor.lstrip("^").rsplit(":", 1)[0]


def normal(tensor: str) -> str:
    """`node:0` for `node`; all other names unchanged."""
    return tensor if ":" in tensor or tensor.startswith("^") else f"{tensor}:0"


def has_control_inputs(node: Any) -> bool:
    return any(tensor.startswith("^") for tensor in node.input)


def type_of(node: Any, attr: str = "T") -> tf.DType | None:
    """An attribute that is one type, not a list of types. None if the node lacks it."""
    # Reading an attribute that a node lacks would add it.
    if attr not in node.attr or node.attr[attr].WhichOneof("value") != "type":
        return None
    return tf.as_dtype(node.attr[attr].type)


def data_format(node: Any) -> bytes:
    """`NHWC` unless the node says otherwise."""
    return node.attr["data_format"].s if "data_format" in node.attr else b"NHWC"


def typed_inputs(node: Any, attr: str) -> list[int]:
    """Positions of the inputs whose type is the attribute `attr`."""
    op = op_def_registry.get(node.op)
    positions: list[int] = []
    at = 0
    for argument in op.input_arg if op else ():
        count = node.attr[argument.number_attr].i if argument.number_attr else 1
        if argument.type_attr == attr:
            positions.extend(range(at, at + count))
        at += count
    return positions


def evaluate(graph_def: Any, tensors: Iterable[str]) -> list[np.ndarray]:
    """Values of tensors that depend on constants only."""
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            return session.run(list(tensors))
