"""Computes a digest of a frozen network's computation, independent of how its graph is written.

The digest of a tensor covers its operation, the attributes that change a result, and the digests of
the operation's inputs. These do not count: names and order of nodes, nodes that the output does not
need, placement, identities, attributes with their default value, and whether a function is called
or inlined. Values are not computed, because other processors and versions of TensorFlow would round
them differently.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from featurewire_exporter.graph.freeze import FrozenNetwork
from featurewire_exporter.graph.graph import PASS_THROUGH

_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
_SAME_OPERATION = {
    "Add": "AddV2",
    "StatelessCase": "Case",
    "StatelessIf": "If",
    "StatelessWhile": "While",
}
"""Names under which other versions of TensorFlow write the same operation."""
_HINTS = {
    "config",
    "config_proto",
    "container",
    "executor_type",
    "frame_name",
    "message",
    "output_shapes",
    "parallel_iterations",
    "shared_name",
}
"""Attributes that name something or say how to run it, and change no result."""

Tensor = tuple[str, int]
"""The name of a node, and which of its outputs."""


def graph_digest(network: FrozenNetwork) -> str:
    """SHA-256 of the computation of the network's output, in hexadecimal digits."""
    library = {function.signature.name: function for function in network.graph_def.library.function}
    nodes = {node.name: node for node in network.graph_def.node}
    inputs = {name: [_flat(tensor) for tensor in node.input] for name, node in nodes.items()}
    image = {network.input: [_hash("image")]}
    (digest,) = _Body(nodes, inputs, image, library).digests([_flat(network.output)])
    return digest.hex()


class _Body:
    """The nodes of a graph or of a function, and the digests of their tensors."""

    def __init__(
        self,
        nodes: Mapping[str, Any],
        inputs: Mapping[str, Sequence[Tensor]],
        given: Mapping[str, list[bytes]],
        library: Mapping[str, Any],
    ) -> None:
        """`inputs`: what each node reads; an output of -1 only orders. `given`: the digests of
        the outputs of nodes that stand for something outside."""
        self._nodes = nodes
        self._inputs = inputs
        self._given = given
        self._library = library
        self._constants: dict[str, bytes] = {}
        self._loops = {name: b"" for name in nodes if nodes[name].op == "NextIteration"}
        self._guarded = self._below_switches()
        self._outputs: dict[str, bytes | list[bytes]] = {}

    def digests(self, tensors: Sequence[Tensor]) -> list[bytes]:
        """The digests of tensors, in their order."""
        # A tensor in a loop depends on itself, so each round looks one more step back.
        for _ in self._loops:
            self._outputs = {}
            fed_back = {name: self._inputs[name][0] for name in self._loops}
            self._evaluate(name for name, _ in fed_back.values())
            self._loops = {name: self._digest(tensor) for name, tensor in fed_back.items()}
        self._outputs = {}
        self._evaluate(name for name, _ in tensors)
        return [self._digest(tensor) for tensor in tensors]

    def _evaluate(self, names: Iterable[str]) -> None:
        stack = list(names)
        while stack:
            name = stack[-1]
            waiting = [
                source
                for source, port in self._inputs.get(name, ())
                if source not in self._outputs and (port >= 0 or source in self._guarded)
            ]
            if waiting and name not in self._given and name not in self._loops:
                stack += waiting
                continue
            stack.pop()
            if name not in self._outputs:
                self._outputs[name] = self._node(name)

    def _digest(self, tensor: Tensor) -> bytes:
        name, port = tensor
        outputs = self._outputs[name]
        return outputs[max(port, 0)] if isinstance(outputs, list) else _hash(outputs, port)

    def _node(self, name: str) -> bytes | list[bytes]:
        """One digest for all outputs of a node, or one for each."""
        if name in self._given:
            return self._given[name]
        node = self._nodes[name]
        if name in self._loops:
            return _hash("loop", self._loops[name])
        data = [self._digest(tensor) for tensor in self._inputs[name] if tensor[1] >= 0]
        # Only its control inputs tell which branch computes a constant.
        waits = {self._digest(each) for each in self._inputs[name] if self._decides(each)}
        if node.op in PASS_THROUGH and not waits:
            return data
        if node.op == "Const":
            if name not in self._constants:
                self._constants[name] = _constant(node.attr["value"].tensor)
            return _hash(self._constants[name], *sorted(waits))
        called = node.attr["f"].func.name if node.op in _CALLS else node.op
        if called in self._library:
            return _function(self._library[called], data, self._library)
        operation = _SAME_OPERATION.get(node.op, node.op)
        return _hash(operation, self._attributes(node), _hash(*data), *sorted(waits))

    def _decides(self, tensor: Tensor) -> bool:
        name, port = tensor
        return port < 0 and name in self._guarded

    def _attributes(self, node: Any) -> bytes:
        definition = op_def_registry.get(node.op)
        defaults = {
            each.name: self._value(each.default_value)
            for each in (definition.attr if definition else ())
            if each.HasField("default_value")
        }
        found: list[bytes | str] = []
        for key in sorted(node.attr):
            if key.startswith("_") or key in _HINTS:
                continue
            value = self._value(node.attr[key])
            if value != defaults.get(key):
                found += [key, value]
        return _hash(*found)

    def _value(self, attribute: Any) -> bytes:
        kind = attribute.WhichOneof("value")
        if kind is None:
            return b""
        value = getattr(attribute, kind)
        if kind != "list":
            return _hash(kind, self._single(kind, value))
        parts = [
            _hash(field.name, *(self._single(field.name, each) for each in values))
            for field, values in value.ListFields()
        ]
        return _hash(kind, *parts)

    def _single(self, kind: str, value: Any) -> bytes:
        if kind == "func":
            function = self._library[value.name]
            arguments = [_hash("argument", at) for at, _ in enumerate(function.signature.input_arg)]
            return _hash(*_function(function, arguments, self._library))
        if kind == "tensor":
            return _constant(value)
        if kind == "shape":
            sizes = [dim.size for dim in value.dim]
            return _hash(repr(None if value.unknown_rank else sizes))
        return _hash(repr(value))

    def _below_switches(self) -> set[str]:
        """The nodes that run in one branch of a TensorFlow 1 conditional, or in a loop."""
        found = {name for name, node in self._nodes.items() if node.op in ("Switch", "RefSwitch")}
        if not found:
            return found
        readers: dict[str, list[str]] = {}
        for name, tensors in self._inputs.items():
            for source, _ in tensors:
                readers.setdefault(source, []).append(name)
        waiting = list(found)
        while waiting:
            new = set(readers.get(waiting.pop(), ())) - found
            found |= new
            waiting += new
        return found


def _function(function: Any, arguments: Sequence[bytes], library: Mapping[str, Any]) -> list[bytes]:
    """The digests of what a function returns for arguments with these digests."""
    nodes = {node.name: node for node in function.node_def}
    given = {
        argument.name: [digest]
        for argument, digest in zip(function.signature.input_arg, arguments, strict=False)
    }
    outputs = {name: _first_of_outputs(node, library) for name, node in nodes.items()}

    def flat(tensor: str) -> Tensor:
        name, *output = tensor.split(":")
        if name.startswith("^") or not output:
            return _flat(name)
        return name, outputs[name][output[0]] + int(output[1])

    inputs = {name: [flat(tensor) for tensor in node.input] for name, node in nodes.items()}
    returned = [flat(function.ret[each.name]) for each in function.signature.output_arg]
    return _Body(nodes, inputs, given, library).digests(returned)


def _first_of_outputs(node: Any, library: Mapping[str, Any]) -> dict[str, int]:
    """The number of the first tensor of each named output of an operation."""
    definition = op_def_registry.get(node.op)
    if definition is None:
        definition = library[node.op].signature
    first, at = {}, 0
    for output in definition.output_arg:
        first[output.name] = at
        if output.number_attr:
            at += node.attr[output.number_attr].i
        elif output.type_list_attr:
            at += len(node.attr[output.type_list_attr].list.type)
        else:
            at += 1
    return first


def _flat(tensor: str) -> Tensor:
    if tensor.startswith("^"):
        return tensor[1:], -1
    name, _, port = tensor.partition(":")
    return name, int(port or 0)


def _constant(tensor: Any) -> bytes:
    value = tf.make_ndarray(tensor)
    kind = (tf.as_dtype(tensor.dtype).name, str(value.shape))
    if value.dtype == object:
        return _hash("constant", *kind, *value.flat)
    return _hash("constant", *kind, value.tobytes())


def _hash(*parts: bytes | str | int) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()
