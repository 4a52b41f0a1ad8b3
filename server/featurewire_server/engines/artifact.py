"""Wraps the engine of an exporter's artifact: limits the rows per run, and extends the manifest.

The size of a request does not tell how much memory it needs. An encoded image may be empty, but
takes a megabyte when decoded and ten more inside the network. A thousand empty images fit in 2 KB,
and took gigabytes when they ran together. So large requests run in chunks, which is safe because
the rows of an artifact are independent. The wrapper also adds the engine and its precision to the
served manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from featurewire._tfs.meta_graph_pb2 import SignatureDef
from featurewire_server.engines.engine import Engine, Patience, endless

MANIFEST_SIGNATURE = "manifest"
"""The signature that returns an artifact's description as JSON."""
ROWS = 32
"""The exporter's largest batch, which warm-up covers. Larger ones are not faster on a CPU."""


class ArtifactEngine:
    """Runs another engine with up to `ROWS` rows at a time.

    Only for artifacts, because in other models a row may depend on its neighbours.
    """

    def __init__(self, engine: Engine) -> None:
        self.name = engine.name
        self.precision = engine.precision
        self.side_by_side = engine.side_by_side
        self.pads = engine.pads
        self.signatures: Mapping[str, SignatureDef] = engine.signatures
        self._engine = engine
        self.independent_rows = True

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        patience: Patience = endless,
    ) -> dict[str, np.ndarray]:
        counts = {array.shape[0] if array.ndim else 0 for array in inputs.values()}
        rows = max(counts, default=0)
        if signature_name == MANIFEST_SIGNATURE:
            found = self._engine.run(signature_name, inputs, outputs)
            return {name: self._as_served(texts) for name, texts in found.items()}
        if rows <= ROWS or len(counts) > 1:  # the graph refuses inputs that do not match
            return self._engine.run(signature_name, inputs, outputs, patience)
        chunks = []
        for start in range(0, rows, ROWS):
            chunk = {name: array[start : start + ROWS] for name, array in inputs.items()}
            chunks.append(self._engine.run(signature_name, chunk, outputs, patience))
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in outputs}

    def _as_served(self, texts: np.ndarray) -> np.ndarray:
        """The manifest in every row, with the engine and precision of this server added."""
        if not texts.size:
            return texts
        served = {"engine": self.name, "precision": self.precision}
        text = json.dumps(json.loads(texts.flat[0]) | {"served": served}, sort_keys=True)
        return np.full(texts.shape, text.encode(), object)

    def close(self) -> None:
        self._engine.close()
