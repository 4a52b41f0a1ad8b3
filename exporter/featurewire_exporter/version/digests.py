"""SHA-256 of a version's files, in its manifest: what a copy of the version must come to.

The manifest is part of the graph, so the graph's digest is that of `saved_model.pb` with the
manifest's own text left out.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from featurewire_exporter.version.manifest import DIRECTORY, FILE, dumps

GRAPH = "saved_model.pb"
_UNKNOWN = "0" * 64


def seal(
    version: Path, about: Mapping[str, Any], write: Callable[[Path, Mapping[str, Any]], None]
) -> dict[str, Any]:
    """Add the digests to the manifest `about`, in the graph and in its file; returns it.

    `write` writes the graph with a manifest into a version.
    """
    files = {name: _digest(path) for name, path in sorted(_files(version).items()) if name != GRAPH}
    sealed = dict(about) | {"files": files | {GRAPH: _UNKNOWN}}
    write(version, sealed)
    # A digest is as long as the one that is not known yet, so the graph need not be laid out anew.
    with _mapped(version / GRAPH, mmap.ACCESS_WRITE) as graph:
        text = _text(sealed)
        at = graph.find(text)
        sealed["files"][GRAPH] = _digest_without(graph, at, len(text))
        graph[at : at + len(text)] = _text(sealed)
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
            with _mapped(files[name], mmap.ACCESS_READ) as graph:
                text = _text(about)
                found = _digest_without(graph, graph.find(text), len(text))
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


@contextmanager
def _mapped(path: Path, access: int) -> Iterator[mmap.mmap]:
    mode = "r+b" if access == mmap.ACCESS_WRITE else "rb"
    with path.open(mode) as file, mmap.mmap(file.fileno(), 0, access=access) as data:
        yield data


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_without(data: mmap.mmap, at: int, length: int) -> str:
    with memoryview(data) as view, view[:at] as before, view[at + length :] as after:
        digest = hashlib.sha256(before)
        digest.update(after)
    return digest.hexdigest()
