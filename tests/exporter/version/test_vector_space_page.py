"""docs/vector-space.md: its test vectors, by the exporter and by an implementation of the page."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.framework import graph_pb2

from featurewire_exporter.graph.digest import graph_digest
from featurewire_exporter.graph.freeze import FrozenNetwork
from featurewire_exporter.version.vector_space import vector_space

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "vector-space.md").read_text()
GRAPH = re.search(r"```pbtxt\n(.*?)```", PAGE, re.DOTALL)[1]
SETTINGS = json.loads(re.search(r"the name with `(.*?)`", PAGE)[1])
IMAGE, DIGEST, NAME, OTHER_NAME = re.findall(r"^\| .* \| `([\w-]{40,64})` \|$", PAGE, re.MULTILINE)


def network(text: str) -> FrozenNetwork:
    graph = text_format.Parse(text, graph_pb2.GraphDef())
    return FrozenNetwork(graph_def=graph, input="images", output="vector:0")


def h(*parts: bytes | str | int) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()


def by_the_page(nodes: dict[str, Any], name: str) -> bytes:
    """The digest of a node's first output."""
    if name == "images":
        return h("image")
    node = nodes[name]
    if node.op == "Const":
        value = tf.make_ndarray(node.attr["value"].tensor)
        return h(h(h("constant", value.dtype.name, str(value.shape), value.tobytes())), 0)
    defaults = {("Tidx", tf.int32.as_datatype_enum), ("keep_dims", False)}
    attributes: list[bytes | str] = []
    for key in sorted(node.attr):
        kind = node.attr[key].WhichOneof("value")
        value = getattr(node.attr[key], kind)
        if (key, value) not in defaults:
            attributes += [key, h(kind, h(repr(value)))]
    inputs = h(*(by_the_page(nodes, each) for each in node.input))
    return h(h(node.op, h(*attributes), inputs), 0)


def test_the_exporter_gives_the_names_of_the_page():
    assert graph_digest(network(GRAPH)) == DIGEST
    assert vector_space(network(GRAPH), SETTINGS) == NAME
    assert vector_space(network(GRAPH.replace("2.0", "2.5")), SETTINGS) == OTHER_NAME


def test_an_implementation_of_the_page_gives_the_same_names():
    assert h("image").hex() == IMAGE
    nodes = {node.name: node for node in network(GRAPH).graph_def.node}
    graph = by_the_page(nodes, "vector").hex()
    assert graph == DIGEST
    text = json.dumps({"graph": graph, "preprocess": SETTINGS}, sort_keys=True)
    assert f"graph-1-{hashlib.sha256(text.encode()).hexdigest()[:32]}" == NAME
