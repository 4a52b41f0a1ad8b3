"""What search keeps when queries go through a bridge: measured in an index of old vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from featurewire_exporter.bridge.maps import unit

NEIGHBOURS = 10
FEWEST_MATCHES = 10
"""False matches above a cut-off, for the table to name it."""
CUTOFFS = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""Similarities at which duplicate detectors are usually cut off."""


@dataclass(frozen=True, kw_only=True)
class Recall:
    """How often a crop finds its own picture."""

    at_1: float
    at_10: float
    reciprocal_rank: float
    """Mean of 1/rank of the own picture."""


@dataclass(frozen=True, kw_only=True)
class Retention:
    """Queries with pictures that the map has not seen."""

    queries: int
    index: int
    """Pictures in the index."""
    bridged: Recall
    """Bridged queries in the old index."""
    reembedded: Recall
    """New queries in an index of new vectors: what re-embedding would bring."""
    untouched: Recall | None
    """New queries in the old index as they are; None where the dimensions differ."""
    among_learned: Recall
    """Bridged queries in an index that also holds the pictures that the map was learned from:
    what it gives lies close to these, so they are found too often."""
    overlap_at_10: float
    """Share of a picture's ten nearest in the old index that its bridged vector finds, too."""
    reembedded_overlap_at_10: float
    """The same for its new vector in an index of new vectors."""
    untouched_overlap_at_10: float | None
    """The same for its new vector in the old index; None where the dimensions differ."""
    cutoffs: tuple[tuple[float, float], ...]
    """An old cut-off, and the bridged one with the same share of false matches."""

    @property
    def at_1(self) -> float:
        """Recall@1 by re-embedding's."""
        return self.bridged.at_1 / max(self.reembedded.at_1, 1e-9)

    @property
    def at_10(self) -> float:
        """Recall@10 by re-embedding's."""
        return self.bridged.at_10 / max(self.reembedded.at_10, 1e-9)

    def as_manifest(self) -> dict[str, Any]:
        return {
            "recall_at_1": round(self.at_1, 4),
            "recall_at_10": round(self.at_10, 4),
            "overlap_at_10": round(self.overlap_at_10, 4),
            "queries": self.queries,
            "index": self.index,
        }


def recall(queries: np.ndarray, own: np.ndarray, index: np.ndarray) -> Recall:
    """`queries`: float `[Q, D]`; `own`: the row of `index`, float `[N, D]`, each should find."""
    similarity = unit(queries) @ unit(index).T
    right = similarity[np.arange(len(own)), own]
    # Of equal ones the own picture comes last: a map that gives one vector for all finds nothing.
    ranks = (similarity >= right[:, np.newaxis]).sum(axis=1)
    return Recall(
        at_1=float((ranks <= 1).mean()),
        at_10=float((ranks <= NEIGHBOURS).mean()),
        reciprocal_rank=float((1 / ranks).mean()),
    )


def overlap(old: np.ndarray, queries: np.ndarray, index: np.ndarray) -> float:
    """Share of each picture's ten nearest among `old` that `queries` find in `index`, too.

    All are of the same pictures, row by row; a query's own picture does not count.
    """
    count = min(NEIGHBOURS, len(old) - 1)
    nearest = [_others(*each)[:, :count] for each in ((old, old), (queries, index))]
    common = [np.isin(a, b).mean() for a, b in zip(*nearest, strict=True)]
    return float(np.mean(common))


def _others(queries: np.ndarray, index: np.ndarray) -> np.ndarray:
    similarity = unit(queries) @ unit(index).T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1)


def cutoffs(old: np.ndarray, bridged: np.ndarray) -> tuple[tuple[float, float], ...]:
    """For each of `CUTOFFS` the bridged similarity that equally many false matches exceed.

    `old`, `bridged`: float `[N, D]`, the old vectors of pictures and the bridged ones. A false
    match is one of two different pictures.
    """
    different = ~np.eye(len(old), dtype=bool)
    before = np.sort((unit(old) @ unit(old).T)[different])
    after = np.sort((unit(bridged) @ unit(old).T)[different])
    table = []
    for cutoff in CUTOFFS:
        above = len(before) - np.searchsorted(before, cutoff)
        if above >= FEWEST_MATCHES:
            table.append((cutoff, float(after[len(after) - above])))
    return tuple(table)
