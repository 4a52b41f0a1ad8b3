"""The report of a check as JSON."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from featurewire_rollout.check.bootstrap import Interval
from featurewire_rollout.check.cutoffs import Cutoff
from featurewire_rollout.check.measures import Measure
from featurewire_rollout.check.pairs import Side
from featurewire_rollout.check.report import Report

SCHEMA = 1
PERCENTILES = (5, 25, 50, 75, 95)


def to_json(report: Report) -> dict[str, Any]:
    """The report as a JSON object. `docs/rollout-check.md` describes every key."""
    pairs = report.pairs
    return {
        "schema": SCHEMA,
        "model": pairs.model,
        "verdict": {
            "outcome": report.verdict.outcome,
            "exit_status": report.exit_status,
            "space": report.verdict.space,
            "fit": report.verdict.fit,
            "bridge": report.verdict.bridge,
            "text": report.verdict.text,
            "more_images": report.verdict.more_images,
            "notes": [*report.verdict.notes, *report.remarks],
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
        "thresholds": dict(report.thresholds.__dict__),
        "seed": report.seed,
        "measures": [_measure(each) for each in report.measures],
        "cutoffs": [_cutoff(each) for each in report.cutoffs],
        "worst": [
            {
                "image": pairs.names[row],
                "cosine": _number(float(report.cosines[row])),
                "nearest_before": pairs.names[before],
                "nearest_after": pairs.names[after],
            }
            for row, before, after in report.worst_pairs()
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
    """Rounded to six digits; None for an infinity, which JSON lacks."""
    return round(value, 6) if math.isfinite(value) else None
