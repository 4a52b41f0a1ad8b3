"""How benchmarks take times."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


def in_turns(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run by its name, a value a round; before them, one round that warms up."""
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
    """Latencies in ms by their column's title; only those that so many values can tell."""
    return {
        f"{name} ms": 1000 * quantile(seconds, share)
        for name, share in told_by(len(seconds)).items()
    }


def told_by(count: int) -> dict[str, float]:
    """The percentiles that so many values can tell: above it is one of them at least."""
    return {
        name: share
        for name, share in PERCENTILES.items()
        if count and (round(count * (1 - share), 6) >= 1 or share < 0.9)
    }
