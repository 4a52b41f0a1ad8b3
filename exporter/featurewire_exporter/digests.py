"""SHA-256 of a version's files, in its manifest: what a copy of the version must come to.

The manifest is part of the graph, so the graph's digest is that of `saved_model.pb` with the
manifest's own text left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorflow.core.protobuf import saved_model_pb2

from featurewire_exporter.manifest import DIRECTORY, FILE, dumps

GRAPH = "saved_model.pb"
_UNKNOWN = "0" * 64


def seal(version: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Add the digests to the manifest `about`, in the graph and in its file; returns it."""
    files = {name: _digest(path) for name, path in sorted(_files(version).items()) if name != GRAPH}
    sealed = dict(about) | {"files": files | {GRAPH: _UNKNOWN}}
    graph = version / GRAPH
    data = bytearray(_with_manifest(graph.read_bytes(), _text(about), _text(sealed)))
    at, length = data.find(_text(sealed)), len(_text(sealed))
    sealed["files"][GRAPH] = _digest_without(data, at, length)
    data[at : at + length] = _text(sealed)
    graph.write_bytes(data)
    (version / DIRECTORY / FILE).write_text(dumps(sealed))
    return sealed


def changed_file(version: Path, about: Mapping[str, Any]) -> str | None:
    """The first file that is missing or not what the manifest says; None where all are."""
    files = _files(version)
    for name, expected in about.get("files", {}).items():
        if name not in files:
            return name
        if name != GRAPH:
            found = _digest(files[name])
        else:
            data, text = files[name].read_bytes(), _text(about)
            found = _digest_without(data, data.find(text), len(text))
        if found != expected:
            return name
    return None


def _files(version: Path) -> dict[str, Path]:
    """By their names within the version, all but the manifest's."""
    found = {
        path.relative_to(version).as_posix(): path for path in version.rglob("*") if path.is_file()
    }
    return {name: path for name, path in found.items() if name != f"{DIRECTORY}/{FILE}"}


def _text(about: Mapping[str, Any]) -> bytes:
    """The manifest as the graph holds it."""
    return json.dumps(about, sort_keys=True).encode()


def _with_manifest(graph: bytes, old: bytes, new: bytes) -> bytes:
    saved_model = saved_model_pb2.SavedModel.FromString(graph)
    tensors = [
        node.attr["value"].tensor
        for meta in saved_model.meta_graphs
        for node in meta.graph_def.node
        if node.op == "Const" and old in node.attr["value"].tensor.string_val
    ]
    for tensor in tensors:
        tensor.string_val[:] = [new]
    return saved_model.SerializeToString(deterministic=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_without(data: bytes | bytearray, at: int, length: int) -> str:
    view = memoryview(data)
    digest = hashlib.sha256(view[:at])
    digest.update(view[at + length :])
    return digest.hexdigest()
