"""The recall that a search in an index of old vectors keeps when queries go through a bridge."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurewire_exporter.quality.recall import NEIGHBOURS, Recall


@dataclass(frozen=True, kw_only=True)
class Retention:
    """Results of queries with pictures that the map has not seen."""

    queries: int
    index: int
    """Pictures in the index."""
    bridged: Recall
    """Bridged queries in the old index."""
    reembedded: Recall
    """New queries in an index of new vectors, as after re-embedding."""
    untouched: Recall | None
    """New queries in the old index as they are; None where the dimensions differ."""
    among_learned: Recall
    """Bridged queries in an index that also holds the pictures that the map was learned from.
    Bridged vectors are close to these, so a query finds them too often."""
    overlap_at_10: float
    """Fraction of a picture's ten nearest in the old index that its bridged vector also finds."""
    reembedded_overlap_at_10: float
    """The same for its new vector in an index of new vectors."""
    untouched_overlap_at_10: float | None
    """The same for its new vector in the old index; None where the dimensions differ."""
    cutoffs: tuple[tuple[float, float], ...]
    """An old cut-off, and the bridged one with the same share of false matches."""
    by_index: tuple[tuple[int, float], ...] = ()
    """Sizes of indexes, each with the fraction of recall@1 that the bridge keeps there. They are
    parts of the tested index, and last all of it."""

    @property
    def at_1(self) -> float:
        """Recall@1 as a fraction of re-embedding's."""
        return self.bridged.at_1 / max(self.reembedded.at_1, 1e-9)

    @property
    def at_10(self) -> float:
        """Recall@10 as a fraction of re-embedding's."""
        return self.bridged.at_10 / max(self.reembedded.at_10, 1e-9)

    def at_1_in(self, size: int) -> float | None:
        """The share of recall@1 that the bridge would keep in an index of `size` pictures, which is
        larger than the tested one. Estimated: its log-odds fall by the same amount with each
        doubling of the index. None where the tested index is too small to say."""
        if len(self.by_index) < 2:
            return None
        (_, before), (tested, now) = self.by_index[-2:]
        step = min(0.0, _log_odds(now) - _log_odds(before))
        return 1 / (1 + math.exp(-_log_odds(now) - step * math.log2(size / tested)))

    def as_manifest(self) -> dict[str, Any]:
        return {
            "recall_at_1": round(self.at_1, 4),
            "recall_at_10": round(self.at_10, 4),
            "overlap_at_10": round(self.overlap_at_10, 4),
            "queries": self.queries,
            "index": self.index,
            "recall_at_1_by_index": [[size, round(kept, 4)] for size, kept in self.by_index],
        }


def _log_odds(share: float) -> float:
    # Bounds keep the log-odds finite if the bridge loses all queries of the test, or keeps all.
    share = min(max(share, 1e-3), 1 - 1e-3)
    return math.log(share / (1 - share))


def kept_by_index(
    bridged: np.ndarray, reembedded: np.ndarray, size: int
) -> tuple[tuple[int, float], ...]:
    """The share of recall@1 that is kept in an index of a quarter, half and all of the pictures.

    `bridged`, `reembedded`: `ranks` in the whole index, which has `size` pictures.
    """
    parts = [part for part in (size // 4, size // 2, size) if part > NEIGHBOURS]
    return tuple(
        (part, _at_1_among(bridged, part, size) / max(_at_1_among(reembedded, part, size), 1e-9))
        for part in parts
    )


def _at_1_among(found: np.ndarray, part: int, size: int) -> float:
    """Recall@1 to be expected in a random part of an index, of `part` pictures of `size`."""
    # Hypergeometric: the part may not contain any picture that ranks before the own one.
    drawn = np.arange(size - 1)
    missed = np.cumprod(np.maximum(size - part - drawn, 0) / (size - 1 - drawn))
    return float(np.concatenate([[1.0], missed])[found - 1].mean())
