"""The result of a check. `check.render` turns it into JSON, text and a page."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from featurewire_rollout.check import neighbours
from featurewire_rollout.check.cutoffs import Cutoff
from featurewire_rollout.check.measures import Measure
from featurewire_rollout.check.pairs import Pairs, Vectors
from featurewire_rollout.check.thresholds import Thresholds
from featurewire_rollout.check.verdict import EXIT_STATUS, Verdict

WORST_IMAGES = 12


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of one check. `exit_status`: 0 pass, 1 fail, 3 inconclusive."""

    pairs: Pairs
    thresholds: Thresholds
    measures: list[Measure]
    cutoffs: list[Cutoff]
    verdict: Verdict
    cosines: Vectors
    """`(N,)`: the cosine of each image's two vectors, or of its crop's if lower. NaN without."""
    seed: int
    remarks: tuple[str, ...] = ()
    """Sentences about measures that were left out."""

    @property
    def exit_status(self) -> int:
        return EXIT_STATUS[self.verdict.outcome]

    def worst(self, count: int = WORST_IMAGES) -> list[int]:
        """Rows of the images whose two vectors differ most, the largest difference first."""
        order = np.argsort(np.where(np.isnan(self.cosines), np.inf, self.cosines), kind="stable")
        return [int(row) for row in order[:count] if not math.isnan(self.cosines[row])]

    def worst_pairs(self, count: int = WORST_IMAGES) -> list[tuple[int, int, int]]:
        """(row, nearest other row in stable, nearest in canary) for each of the worst rows."""
        usable = np.flatnonzero(self.pairs.usable)
        if len(usable) < 2:
            return []
        nearest = [
            usable[neighbours.similarities(side.vectors[usable]).argmax(axis=1)]
            for side in (self.pairs.stable, self.pairs.canary)
        ]
        places = {int(row): place for place, row in enumerate(usable)}
        return [
            (row, int(nearest[0][places[row]]), int(nearest[1][places[row]]))
            for row in self.worst(count)
        ]
