"""Measures of a search by cosine similarity: recall, overlap of neighbours, and cut-offs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEIGHBOURS = 10
MIN_MATCHES = 10
"""Minimum number of false matches above a cut-off for it to be in the table."""
COSINE_CUTOFFS = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""Usual cut-offs of duplicate detectors."""


@dataclass(frozen=True, kw_only=True)
class Recall:
    """How often a crop finds its own picture."""

    at_1: float
    at_10: float
    reciprocal_rank: float
    """Mean of 1/rank of the own picture."""


def unit(vectors: np.ndarray) -> np.ndarray:
    """Each row at length 1; rows of zeros stay."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def recall(queries: np.ndarray, own: np.ndarray, index: np.ndarray) -> Recall:
    """`queries`: float `[Q, D]`; `index`: float `[N, D]`; `own`: the row that each should find."""
    found = ranks(queries, own, index)
    return Recall(
        at_1=float((found <= 1).mean()),
        at_10=float((found <= NEIGHBOURS).mean()),
        reciprocal_rank=float((1 / found).mean()),
    )


def ranks(queries: np.ndarray, own: np.ndarray, index: np.ndarray) -> np.ndarray:
    """int `[Q]`: the place of each query's own picture, from 1 on; as `recall` takes them."""
    similarity = unit(queries) @ unit(index).T
    right = similarity[np.arange(len(own)), own]
    # The own picture ranks last among equals, so a map to one constant vector finds nothing.
    return np.asarray((similarity >= right[:, np.newaxis]).sum(axis=1))


def overlap(old: np.ndarray, queries: np.ndarray, index: np.ndarray) -> float:
    """Fraction of each picture's ten nearest among `old` that `queries` also find in `index`.

    The rows of all three are the same pictures. A query's own picture does not count.
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
    """The bridged similarity that as many false matches exceed as exceed each of `COSINE_CUTOFFS`.

    `old`, `bridged`: float `[N, D]`, the old vectors of pictures and the bridged ones. A false
    match is one of two different pictures.
    """
    different = ~np.eye(len(old), dtype=bool)
    before = np.sort((unit(old) @ unit(old).T)[different])
    after = np.sort((unit(bridged) @ unit(old).T)[different])
    table = []
    for cutoff in COSINE_CUTOFFS:
        above = len(before) - np.searchsorted(before, cutoff)
        if above >= MIN_MATCHES:
            table.append((cutoff, float(after[len(after) - above])))
    return tuple(table)
