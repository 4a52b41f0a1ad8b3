"""Convert an old similarity cut-off into the new one with the same rate of false matches.

There are no labels, so a false match is a pair of different images whose cosine reaches the
cut-off. Real near-duplicates also count, so check with distinct images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featurewire_rollout.check import neighbours
from featurewire_rollout.check.bootstrap import Interval
from featurewire_rollout.check.pairs import Pairs, Vectors

OLD_CUTOFFS = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)
MIN_PAIRS = 10
"""Minimum number of false matches from which a new cut-off is computed."""
MAX_IMAGES = 500
REPLICATES = 200
"""Number of resamples."""
ERROR_RATE = 0.05
"""Probability that a new cut-off is outside its interval."""


@dataclass(frozen=True, kw_only=True)
class Cutoff:
    old: float
    new: Interval | None
    """The new cut-off and its 95 % interval; None if too few pairs are this similar."""
    false_matches: float
    """Fraction of the pairs of different images that reach the old cut-off in stable's vectors."""
    found_before: float | None
    """Fraction of crops that reach the old cut-off with their image, in stable's vectors."""
    found_after: float | None
    """The same at the new cut-off, in canary's vectors."""


def cutoffs(pairs: Pairs, *, seed: int, old: tuple[float, ...] = OLD_CUTOFFS) -> list[Cutoff]:
    """One row per old cut-off. Uses the first 500 images."""
    usable = np.flatnonzero(pairs.usable)[:MAX_IMAGES]
    if len(usable) < 3:
        return []
    one, other = np.triu_indices(len(usable), 1)
    before = neighbours.similarities(pairs.stable.vectors[usable])[one, other]
    after = neighbours.similarities(pairs.canary.vectors[usable])[one, other]
    olds = np.array(old)
    reach = before[:, None] >= olds
    order = np.argsort(-after)
    one, other, sorted_after, reach = one[order], other[order], after[order], reach[order]
    replicates = np.empty((REPLICATES, len(olds)))
    chance = np.random.default_rng(seed)
    shares = np.full(len(usable), 1 / len(usable))
    for row in range(REPLICATES):
        drawn = chance.multinomial(len(usable), shares).astype(np.float64)
        replicates[row] = _matching(sorted_after, drawn[one] * drawn[other], reach)
    whole = _matching(sorted_after, np.ones(len(after)), reach)
    low, high = np.quantile(replicates, [ERROR_RATE / 2, 1 - ERROR_RATE / 2], axis=0)
    rows = []
    for column, cutoff in enumerate(old):
        matches = int(reach[:, column].sum())
        new = Interval(
            estimate=float(whole[column]), low=float(low[column]), high=float(high[column])
        )
        enough = matches >= MIN_PAIRS
        rows.append(
            Cutoff(
                old=cutoff,
                new=new if enough else None,
                false_matches=matches / len(after),
                found_before=_found(pairs.stable.crops, pairs.stable.vectors, usable, cutoff),
                found_after=_found(pairs.canary.crops, pairs.canary.vectors, usable, new.estimate)
                if enough
                else None,
            )
        )
    return rows


def _matching(sorted_after: Vectors, weights: Vectors, reach: np.ndarray) -> Vectors:
    """The cut-off in `sorted_after` that keeps the weight of each column of `reach`."""
    wanted = weights @ reach
    place = np.searchsorted(np.cumsum(weights), wanted - 1e-6)
    return np.asarray(sorted_after[np.minimum(place, len(sorted_after) - 1)])


def _found(
    crops: Vectors | None, vectors: Vectors, rows: np.ndarray, cutoff: float
) -> float | None:
    if crops is None:
        return None
    cosines = (neighbours.unit(crops[rows]) * neighbours.unit(vectors[rows])).sum(axis=1)
    cosines = cosines[~np.isnan(cosines)]
    return float((cosines >= cutoff).mean()) if len(cosines) else None
