"""Names vector spaces: a name is a digest of everything that determines a vector.

It begins with the name of its scheme, so names of two schemes are never equal. Versions that were
published under an older scheme keep their names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from featurewire_exporter.errors import ExportError
from featurewire_exporter.graph.digest import graph_digest
from featurewire_exporter.graph.freeze import FrozenNetwork

SCHEME = "graph-1"
"""Covers the frozen graph (see `graph_digest`) and every setting of the preprocessing."""
WEIGHTS_SCHEME = "weights-1"
"""Covers the weights instead of the graph. Its names are bare digests."""


def vector_space(
    network: FrozenNetwork, preprocess: Mapping[str, Any], *, scheme: str | None = SCHEME
) -> str:
    """The name of the vector space of a frozen network with a preprocessing, from its manifest.

    The network is taken before it is folded and cast, so the precision is not part of the space:
    vectors of all precisions stay comparable, which the parity gate sees to.
    Raises `ExportError` for a scheme that this release does not know.
    """
    if scheme == WEIGHTS_SCHEME:
        return _digest({"weights": weights_digest(network.constants()), "preprocess": preprocess})
    if scheme != SCHEME:
        raise ExportError(
            f"the version's vector space has the scheme {scheme!r}, but this release knows only "
            f"{SCHEME} and {WEIGHTS_SCHEME}; use the release that exported the version"
        )
    return f"{SCHEME}-{_digest({'graph': graph_digest(network), 'preprocess': preprocess})}"


def _digest(parts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def weights_digest(arrays: Iterable[np.ndarray]) -> str:
    """SHA-256 over the float weights of a network, whatever their order and their names.

    Arrays that hold one value over and over are left out: they are structure (a scale of ones),
    and the same network is written with or without them.
    """
    digests = []
    for array in arrays:
        if array.dtype.kind != "f" or array.size < 2 or (array == array.flat[0]).all():
            continue
        digest = hashlib.sha256(repr((array.shape, array.dtype.name)).encode())
        digest.update(np.ascontiguousarray(array).data)
        digests.append(digest.hexdigest())
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()
