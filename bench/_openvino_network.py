"""A version's network as an OpenVINO model or an ONNX model, and its operations."""

from __future__ import annotations

import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from featurewire.manifest import FILE, parse
from featurewire.manifest.network import networks
from featurewire_server.engines.libraries import import_openvino


@cache
def read_network(version: Path) -> Any:
    """The `openvino.Model` of a version directory, for batches of any size."""
    return import_openvino().Core().read_model(_graph(version))


def _graph(version: Path) -> Path:
    """The network of a version directory as a standalone, serialised GraphDef."""
    return version / networks(parse((version / FILE).read_bytes()))["image_feature_vector"]


def convolutions(model: Any) -> tuple[int, float]:
    """Number of convolutions in the network, and their operations for one image.

    Each weight costs a multiplication and an addition at each position of the output. All other
    operations of the network together are below a hundredth of this.
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
    """Number of convolutions and products per run-time precision: `i8`, `bf16`, `f32`, …"""
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

    graph = tf.compat.v1.GraphDef.FromString(_graph(version).read_bytes())
    (entry,) = (node.name for node in graph.node if node.op == "Placeholder")
    read = {name.split(":")[0] for node in graph.node for name in node.input}
    (output,) = (node.name for node in graph.node if node.name not in read)
    tf2onnx.convert.from_graph_def(
        graph, input_names=[f"{entry}:0"], output_names=[f"{output}:0"], output_path=str(file)
    )


if __name__ == "__main__":
    _write_onnx(Path(sys.argv[1]), Path(sys.argv[2]))
