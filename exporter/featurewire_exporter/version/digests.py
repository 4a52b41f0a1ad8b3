"""SHA-256 of a version's files, in its manifest: `featurewire.manifest.files` compares them."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from featurewire.manifest import FILE
from featurewire.manifest.files import GRAPH, digest_of, digest_without, text_in_graph
from featurewire_exporter.version.manifest import dumps

_UNKNOWN = "0" * 64


def seal(
    version: Path, about: Mapping[str, Any], write: Callable[[Path, Mapping[str, Any]], None]
) -> dict[str, Any]:
    """Add the digests to the manifest `about`, in the graph and in its file; returns it.

    `write`: writes the graph, with the given manifest, into a version.
    """
    names = sorted(
        path.relative_to(version).as_posix() for path in version.rglob("*") if path.is_file()
    )
    files = {name: digest_of(version / name) for name in names if name not in (GRAPH, FILE)}
    sealed = dict(about) | {"files": files | {GRAPH: _UNKNOWN}}
    write(version, sealed)
    # All digests have the same length, so this one can be written into the finished file.
    with (version / GRAPH).open("r+b") as file, mmap.mmap(file.fileno(), 0) as graph:
        text = text_in_graph(sealed)
        at = graph.find(text)
        sealed["files"][GRAPH] = digest_without(graph, at, len(text))
        graph[at : at + len(text)] = text_in_graph(sealed)
    (version / FILE).write_text(dumps(sealed))
    return sealed
