"""The published network as OpenVINO reads it: what it computes, and the same as an ONNX model."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from featurewire_server.engines.engine import MANIFEST, Split
from featurewire_server.engines.libraries import import_openvino, import_tensorflow

OPSET = 17


def read_network(version: Path) -> Any:
    """The `openvino.Model` of a version directory, for batches of any size."""
    import_tensorflow()
    ov = import_openvino()
    from featurewire_server.engines.openvino_graph import take_apart

    split = Split(**json.loads((version / MANIFEST).read_text())["split"])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "network.pb")
        file.write_bytes(take_apart(version, ("serve",), split).network)
        return ov.Core().read_model(file)


def convolutions(model: Any) -> tuple[int, float]:
    """How many the network has, and the operations that they take for one image.

    A multiplication and an addition for each weight at each place of the output. Everything else
    that the network computes is below a hundredth of it.
    """
    one = model.clone()
    sizes = list(one.input(0).partial_shape)[1:]
    one.reshape([1, *(size.get_length() for size in sizes)])
    nodes = [node for node in one.get_ops() if node.get_type_name() == "Convolution"]
    work = (
        2 * np.prod(list(node.output(0).shape)) * np.prod(list(node.input(1).get_shape())[1:])
        for node in nodes
    )
    return len(nodes), float(sum(work))


def write_onnx(model: Any, path: Path) -> Path:
    """The same network, weights included, node by node as an ONNX model.

    The converters from TensorFlow to ONNX need an older protobuf than TensorFlow does. Raises
    ValueError for an operation that image networks like this one do not have.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights, inputs, outputs = [], [], [], []
    for node in model.get_ordered_ops():
        name, kind = node.get_friendly_name(), node.get_type_name()
        sources = [
            source.get_source_output().get_node().get_friendly_name() for source in node.inputs()
        ]
        if kind == "Parameter":
            sizes = [size.get_length() for size in list(node.output(0).partial_shape)[1:]]
            inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *sizes]))
        elif kind == "Result":
            outputs.append(helper.make_tensor_value_info(sources[0], TensorProto.FLOAT, None))
        elif kind == "Constant":
            weights.append(numpy_helper.from_array(np.array(node.get_data()), name))
        else:
            operation, attributes, used = _onnx_operation(node, kind)
            nodes.append(helper.make_node(operation, sources[:used], [name], name, **attributes))
    graph = helper.make_graph(nodes, "network", inputs, outputs, weights)
    opset = helper.make_opsetid("", OPSET)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    return path


def _onnx_operation(node: Any, kind: str) -> tuple[str, dict[str, Any], int]:
    """The ONNX operation of a node, its attributes, and how many of the inputs it takes."""
    found = node.get_attributes()
    pads = [*found.get("pads_begin", ()), *found.get("pads_end", ())]
    window = {"strides": found.get("strides"), "pads": pads}
    match kind:
        case "Add" | "Relu":
            return kind, {}, 2
        case "Convolution":
            return "Conv", {**window, "dilations": found["dilations"]}, 2
        case "MaxPool" if found["rounding_type"] == "floor":
            return kind, {**window, "kernel_shape": found["kernel"]}, 1
        case "AvgPool" if found["rounding_type"] == "floor":
            counted = int(not found["exclude-pad"])
            window |= {"kernel_shape": found["kernel"], "count_include_pad": counted}
            return "AveragePool", window, 1
        case "Concat":
            return kind, {"axis": found["axis"]}, len(node.inputs())
        case "Transpose":
            return kind, {"perm": _constant(node, 1)}, 1
        case "ReduceMean":
            return kind, {"axes": _constant(node, 1), "keepdims": int(found["keep_dims"])}, 1
    raise ValueError(f"no ONNX operation is known for {kind}")


def _constant(node: Any, at: int) -> list[int]:
    values: Iterator[Any] = node.input(at).get_source_output().get_node().get_data()
    return [int(value) for value in values]


def executed(compiled: Any) -> Counter[str]:
    """What a compiled model computes its convolutions and products in: `i8`, `bf16`, `f32`, …"""
    kinds = {"Convolution", "FullyConnected", "MatMul"}
    infos = (node.get_rt_info() for node in compiled.get_runtime_model().get_ops())
    return Counter(
        info["runtimePrecision"].astype(str)
        for info in infos
        if info["layerType"].astype(str) in kinds
    )
