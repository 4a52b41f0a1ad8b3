"""The model of every peer's server: OpenCV, then the network of the embedded server.

Environment variables give the network (FEATUREWIRE_BENCH_NETWORK, in OpenVINO's format) and its
precision (FEATUREWIRE_BENCH_PRECISION).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path

import cv2
import numpy as np

from featurewire_server.common import cgroup
from featurewire_server.engines.openvino_network import Network

BATCH = 16
WAIT = 0.01
"""How long a batch waits to be filled, in seconds."""
SIDE = 299


class Embedder:
    """Turns JPEGs into vectors, with all cores."""

    def __init__(self) -> None:
        self._network = Network(
            Path(os.environ["FEATUREWIRE_BENCH_NETWORK"]),
            input_shape=(SIDE, SIDE, 3),
            precision=os.environ["FEATUREWIRE_BENCH_PRECISION"],
            threads=cgroup.cores(),
            beside=True,
        )
        self._pool = futures.ThreadPoolExecutor(cgroup.cores())

    def __call__(self, images: Sequence[bytes]) -> np.ndarray:
        """float32 [N, 1536]."""
        return self._network.run(np.stack(list(self._pool.map(pixels, images))))


def pixels(image: bytes) -> np.ndarray:
    """RGB pixels, float32 `[299, 299, 3]` in [0, 1], resized by area as OpenCV recommends."""
    decoded = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    small = cv2.resize(decoded, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_BGR2RGB).astype(np.float32) * np.float32(1 / 255)
