"""The published network as OpenVINO reads it, what it computes, and the same as an ONNX model."""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from featurewire_server.engines.engine import MANIFEST, Split
from featurewire_server.engines.libraries import import_openvino, import_tensorflow


@cache
def read_network(version: Path) -> Any:
    """The `openvino.Model` of a version directory, for batches of any size."""
    ov = import_openvino()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "network.pb")
        file.write_bytes(_graph(version))
        return ov.Core().read_model(file)


def _graph(version: Path) -> bytes:
    """The network of a version directory as a GraphDef that stands alone."""
    import_tensorflow()
    from featurewire_server.engines.openvino_graph import take_apart

    split = Split(**json.loads((version / MANIFEST).read_text())["split"])
    return take_apart(version, ("serve",), split).network


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


def executed(compiled: Any) -> Counter[str]:
    """What a compiled model computes its convolutions and products in: `i8`, `bf16`, `f32`, …"""
    kinds = {"Convolution", "FullyConnected", "MatMul"}
    infos = (node.get_rt_info() for node in compiled.get_runtime_model().get_ops())
    return Counter(
        info["runtimePrecision"].astype(str)
        for info in infos
        if info["layerType"].astype(str) in kinds
    )


def _write_onnx(version: Path, file: Path) -> None:
    """The same network, converted by tf2onnx."""
    import tensorflow as tf
    import tf2onnx

    graph = tf.compat.v1.GraphDef.FromString(_graph(version))
    (entry,) = (node.name for node in graph.node if node.op == "Placeholder")
    read = {name.split(":")[0] for node in graph.node for name in node.input}
    (output,) = (node.name for node in graph.node if node.name not in read)
    tf2onnx.convert.from_graph_def(
        graph, input_names=[f"{entry}:0"], output_names=[f"{output}:0"], output_path=str(file)
    )


if __name__ == "__main__":
    _write_onnx(Path(sys.argv[1]), Path(sys.argv[2]))
