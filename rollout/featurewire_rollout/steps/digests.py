"""The SHA-256 digests that a manifest names, compared with a version's files."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["GRAPH", "changed_file", "find_manifest"]

GRAPH = "saved_model.pb"


def changed_file(version: Path, manifest: Mapping[str, Any]) -> str | None:
    """The first file that is not what the manifest says, or is missing; None where all are."""
    files = manifest.get("files")
    for name, expected in files.items() if isinstance(files, dict) else ():
        path = version / name
        if not path.is_file():
            return str(name)
        digest = _of_graph(path, manifest) if name == GRAPH else _of_file(path)
        if digest != expected:
            return str(name)
    return None


def find_manifest(graph: mmap.mmap, manifest: Mapping[str, Any]) -> tuple[int, int]:
    """Where the graph has the manifest's text: (offset, length), the offset -1 where it has not."""
    for sort in (True, False):
        text = json.dumps(manifest, sort_keys=sort).encode()
        if (at := graph.find(text)) >= 0:
            return at, len(text)
    return -1, 0


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _of_graph(path: Path, manifest: Mapping[str, Any]) -> str:
    """Without the manifest's own text, which holds this digest."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as graph:
        at, length = find_manifest(graph, manifest)
        with memoryview(graph) as view, view[:at] as before, view[at + length :] as after:
            digest = hashlib.sha256(before)
            digest.update(after)
    return digest.hexdigest()
