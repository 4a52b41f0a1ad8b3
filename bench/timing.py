"""Timing of benchmarks, and percentiles."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


def in_turns(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run by name, one value per round, after a warm-up round."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if turn:
                found[name].append(time.perf_counter() - started)
    return found


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Percentiles in milliseconds by column title, as far as the number of values supports them."""
    return {
        f"{name} ms": 1000 * quantile(seconds, share)
        for name, share in told_by(len(seconds)).items()
    }


def told_by(count: int) -> dict[str, float]:
    """The percentiles that this many values support: at least one value lies above each."""
    return {
        name: share
        for name, share in PERCENTILES.items()
        if count and (round(count * (1 - share), 6) >= 1 or share < 0.9)
    }
