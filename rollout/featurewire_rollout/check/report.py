"""What a check found: for machines as JSON, for people as a page and a few lines of text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurewire_rollout.check import neighbours
from featurewire_rollout.check.bootstrap import Interval
from featurewire_rollout.check.cutoffs import Cutoff
from featurewire_rollout.check.measures import Measure
from featurewire_rollout.check.pairs import Pairs, Side, Vectors
from featurewire_rollout.check.thresholds import Thresholds
from featurewire_rollout.check.verdict import EXIT_STATUS, Verdict

__all__ = ["Report"]

SCHEMA = 1
WORST = 12
PERCENTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of one check. `exit_status`: 0 pass, 1 fail, 3 inconclusive."""

    pairs: Pairs
    thresholds: Thresholds
    measures: list[Measure]
    cutoffs: list[Cutoff]
    verdict: Verdict
    cosines: Vectors
    """`(N,)`: of each image's two vectors, the lower one of image and crop; NaN for none."""
    seed: int
    remarks: tuple[str, ...] = ()
    """What was not measured, and why."""

    @property
    def exit_status(self) -> int:
        return EXIT_STATUS[self.verdict.outcome]

    def worst(self, count: int = WORST) -> list[int]:
        """Rows of the images whose two vectors are furthest apart, the furthest first."""
        order = np.argsort(np.where(np.isnan(self.cosines), np.inf, self.cosines), kind="stable")
        return [int(row) for row in order[:count] if not math.isnan(self.cosines[row])]

    def worst_pairs(self, count: int = WORST) -> list[tuple[int, int, int]]:
        """For each of the worst rows: the row, its nearest other in stable, and in canary."""
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

    def to_json(self) -> dict[str, Any]:
        """The report as JSON takes it: see `docs/rollout-check.md` for every key."""
        pairs = self.pairs
        return {
            "schema": SCHEMA,
            "model": pairs.model,
            "verdict": {
                "outcome": self.verdict.outcome,
                "exit_status": self.exit_status,
                "space": self.verdict.space,
                "fit": self.verdict.fit,
                "bridge": self.verdict.bridge,
                "text": self.verdict.text,
                "more_images": self.verdict.more_images,
                "notes": [*self.verdict.notes, *self.remarks],
            },
            "stable": _side(pairs.stable),
            "canary": _side(pairs.canary),
            "bridged": None if pairs.bridged is None else _side(pairs.bridged),
            "images": {
                "sent": len(pairs.names),
                "compared": int(pairs.usable.sum()),
                "duplicates": pairs.duplicates,
                "left_out": pairs.left_out,
            },
            "thresholds": dict(self.thresholds.__dict__),
            "seed": self.seed,
            "measures": [_measure(each) for each in self.measures],
            "cutoffs": [_cutoff(each) for each in self.cutoffs],
            "worst": [
                {
                    "image": pairs.names[row],
                    "cosine": _number(float(self.cosines[row])),
                    "nearest_before": pairs.names[before],
                    "nearest_after": pairs.names[after],
                }
                for row, before, after in self.worst_pairs()
            ],
            "errors": [
                {
                    "image": name,
                    "stable": pairs.stable.errors.get(row),
                    "canary": pairs.canary.errors.get(row),
                }
                for row, name in enumerate(pairs.names)
                if row in pairs.stable.errors or row in pairs.canary.errors
            ],
        }

    def to_html(self) -> str:
        """One page with everything in it: nothing is loaded from anywhere."""
        from featurewire_rollout.check.render.page import page

        return page(self)

    def to_text(self) -> str:
        """Lines for a terminal."""
        pairs = self.pairs
        lines = [
            f"{pairs.model}: stable {pairs.stable.version}, canary {pairs.canary.version}, "
            f"{int(pairs.usable.sum())} images",
            f"{self.verdict.outcome}: {self.verdict.text}"
            if not self.verdict.text.startswith(self.verdict.outcome)
            else self.verdict.text,
        ]
        width = max((len(each.title) for each in self.measures), default=0)
        for each in self.measures:
            interval = each.interval
            lines.append(
                f"  {each.title:<{width}}  {interval.estimate:8.4f}  "
                f"[{interval.low:.4f}, {interval.high:.4f}]  {limit_text(each)}".rstrip()
            )
        lines += [*self.verdict.notes, *self.remarks]
        return "\n".join(lines)


def limit_text(measure: Measure) -> str:
    """The limit and what became of it, such as `at least 0.995: kept`."""
    parts = []
    if measure.at_least is not None:
        parts.append(f"at least {measure.at_least:g}")
    if measure.at_most is not None:
        parts.append(f"at most {measure.at_most:g}")
    effect = f"(shows changes from {measure.smallest_effect:.2g})"
    return f"{', '.join(parts)}: {measure.outcome} {effect}" if parts else ""


def _side(side: Side) -> dict[str, Any]:
    latencies = side.latencies[np.isfinite(side.latencies)] * 1000
    return {
        "version": side.version,
        "vector_space": side.vector_space,
        "dimension": side.vectors.shape[1],
        "errors": len(side.errors),
        "latency_ms": {
            f"p{share}": _number(float(np.percentile(latencies, share)))
            for share in PERCENTILES
            if len(latencies)
        },
    }


def _measure(measure: Measure) -> dict[str, Any]:
    return {
        "name": measure.name,
        **_interval(measure.interval),
        "images": measure.count,
        "at_least": measure.at_least,
        "at_most": measure.at_most,
        "outcome": measure.outcome,
        "smallest_effect": _number(measure.smallest_effect),
        "more_images": measure.more_images,
    }


def _cutoff(cutoff: Cutoff) -> dict[str, Any]:
    return {
        "old": cutoff.old,
        "new": None if cutoff.new is None else _interval(cutoff.new),
        "false_matches": cutoff.false_matches,
        "found_before": cutoff.found_before,
        "found_after": cutoff.found_after,
    }


def _interval(interval: Interval) -> dict[str, float | None]:
    return {
        "estimate": _number(interval.estimate),
        "low": _number(interval.low),
        "high": _number(interval.high),
    }


def _number(value: float) -> float | None:
    """JSON has no infinity."""
    return round(value, 6) if math.isfinite(value) else None
