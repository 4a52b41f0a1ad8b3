"""BentoML: `bentoml serve bench.servers.bentoml_service:Images`; POST /embed with a form.

Images arrive as files and vectors leave as JSON, BentoML's own formats for them.
"""

from __future__ import annotations

from pathlib import Path

import bentoml
import numpy as np

from bench.servers.embedder import BATCH, Embedder


@bentoml.service(workers=1, traffic={"timeout": 120})
class Images:
    """Requests are merged into batches by BentoML's adaptive batching."""

    def __init__(self) -> None:
        self._embedder = Embedder()

    @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=60000)
    def embed(self, images: list[Path]) -> np.ndarray:
        return self._embedder([path.read_bytes() for path in images])
