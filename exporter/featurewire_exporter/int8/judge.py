"""What a network in 8 bits is worth: as the gate says it, and as NNCF's accuracy control asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from featurewire_exporter.int8.config import Int8Config
from featurewire_exporter.int8.gate import Measured, measure
from featurewire_exporter.quality.recall import unit

_BATCH = 16
Network = Callable[[np.ndarray], Any]
"""A compiled model: float32 `[N, height, width, 3]` to outputs, the vectors first."""


class Judge:
    """Compares networks with the float one, whose vectors are computed once."""

    def __init__(
        self, judged: np.ndarray, network: Network, config: Int8Config, say: Callable[[str], None]
    ) -> None:
        """`judged`: as in `Pictures`. `network`: the float one."""
        self._judged, self._config, self._say = judged, config, say
        self._exact = self._vectors(network, judged)
        self._best = -np.inf

    def require_telling(self) -> None:
        """Raises `ExportError` for pictures that could not tell a bad network from a good one."""
        measure(self._exact, self._exact).require_telling(self._config)

    def __len__(self) -> int:
        return len(self._judged)

    def measure(self, network: Network) -> Measured:
        return measure(self._exact, self._vectors(network, self._judged))

    def validate(self, network: Network, pictures: Iterable[int]) -> tuple[float, list[float]]:
        """For accuracy control: a metric of these pictures, and one of each.

        Of all pictures the metric is 1 where the gate passes, as for the float network, and less by
        what is missing. Of some, which NNCF asks for to rank layers, it is the mean cosine: it
        tells layers apart that a few pictures' neighbours do not.
        """
        at = np.fromiter(pictures, int)
        exact, found = self._exact[at], self._vectors(network, self._judged[at])
        cosines = (unit(exact) * unit(found)).sum(axis=-1).mean(axis=1)
        if len(at) < len(self):
            return float(cosines.mean()), [*cosines]
        measured = measure(exact, found)
        metric = 1 + min(measured.margin(self._config), 0.0)
        if metric < 1:
            self._say(f"Below the gate by {1 - metric:.4f}: {measured.text()}")
            # A worse metric makes NNCF rank all layers again, which takes minutes.
            metric = self._best = max(self._best, metric)
        return metric, [*cosines]

    def _vectors(self, network: Network, rows: np.ndarray) -> np.ndarray:
        """float32 `[pictures, 1 + crops, dimension]`"""
        found = vectors(network, rows.reshape(-1, *rows.shape[2:]))
        return found.reshape(*rows.shape[:2], -1)


def vectors(network: Network, images: np.ndarray) -> np.ndarray:
    """`images`: float32 `[N, height, width, 3]`; float32 `[N, dimension]`."""
    starts = range(0, len(images), _BATCH)
    return np.concatenate([network(images[start : start + _BATCH])[0].copy() for start in starts])
