"""Compare the files of a version with the digests in its manifest.

The manifest is part of the served graph, so the digest of `saved_model.pb` skips the manifest's own
text.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GRAPH = "saved_model.pb"


def changed_file(version: Path, manifest: Mapping[str, Any]) -> str | None:
    """The first file that is missing or differs from its digest; None if all files match.

    Manifests of early releases do not have digests; then nothing is compared.
    """
    files = manifest.get("files")
    for name, expected in files.items() if isinstance(files, dict) else ():
        path = version / name
        if not path.is_file():
            return str(name)
        found = _digest_of_graph(path, manifest) if name == GRAPH else digest_of(path)
        if found != expected:
            return str(name)
    return None


def digest_of(*paths: Path) -> str:
    """SHA-256 of the files, one after the other, in hexadecimal digits."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while data := file.read(1 << 20):
                digest.update(data)
    return digest.hexdigest()


def digest_without(data: mmap.mmap, at: int, length: int) -> str:
    """SHA-256 of `data` without the `length` bytes at offset `at`."""
    with memoryview(data) as view, view[:at] as before, view[at + length :] as after:
        digest = hashlib.sha256(before)
        digest.update(after)
    return digest.hexdigest()


def text_in_graph(manifest: Mapping[str, Any]) -> bytes:
    """The manifest as the text that the served graph contains."""
    return json.dumps(manifest, sort_keys=True).encode()


def find_text(graph: mmap.mmap, manifest: Mapping[str, Any]) -> tuple[int, int]:
    """Offset and length of the manifest in a graph; (-1, 0) if it is not there."""
    # Our exporter sorts the fields; another writer may keep their order.
    for text in (text_in_graph(manifest), json.dumps(manifest).encode()):
        if (at := graph.find(text)) >= 0:
            return at, len(text)
    return -1, 0


def _digest_of_graph(path: Path, manifest: Mapping[str, Any]) -> str:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as graph:
        at, length = find_text(graph, manifest)
        return digest_without(graph, max(at, 0), length)
