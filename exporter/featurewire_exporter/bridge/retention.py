"""What search keeps when queries go through a bridge: measured in an index of old vectors."""

from __future__ import annotations

import math
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
    by_index: tuple[tuple[int, float], ...] = ()
    """Pictures in an index, and the share of recall@1 that the bridge keeps there: in parts of the
    index that was tested with, and last in all of it."""

    @property
    def at_1(self) -> float:
        """Recall@1 by re-embedding's."""
        return self.bridged.at_1 / max(self.reembedded.at_1, 1e-9)

    @property
    def at_10(self) -> float:
        """Recall@10 by re-embedding's."""
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


def recall(queries: np.ndarray, own: np.ndarray, index: np.ndarray) -> Recall:
    """`queries`: float `[Q, D]`; `own`: the row of `index`, float `[N, D]`, each should find."""
    found = ranks(queries, own, index)
    return Recall(
        at_1=float((found <= 1).mean()),
        at_10=float((found <= NEIGHBOURS).mean()),
        reciprocal_rank=float((1 / found).mean()),
    )


def _log_odds(share: float) -> float:
    # A bridge that loses no query of the test, or keeps none, leaves an estimate possible.
    share = min(max(share, 1e-3), 1 - 1e-3)
    return math.log(share / (1 - share))


def ranks(queries: np.ndarray, own: np.ndarray, index: np.ndarray) -> np.ndarray:
    """int `[Q]`: the place of each query's own picture, from 1 on; as `recall` takes them."""
    similarity = unit(queries) @ unit(index).T
    right = similarity[np.arange(len(own)), own]
    # Of equal ones the own picture comes last: a map that gives one vector for all finds nothing.
    return np.asarray((similarity >= right[:, np.newaxis]).sum(axis=1))


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
    # None of those that come before the own picture may be drawn with it: hypergeometric.
    drawn = np.arange(size - 1)
    missed = np.cumprod(np.maximum(size - part - drawn, 0) / (size - 1 - drawn))
    return float(np.concatenate([[1.0], missed])[found - 1].mean())


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
