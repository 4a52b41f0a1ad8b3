"""What the client has seen: counters and latency percentiles, in fixed memory."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field

__all__ = ["Recorder", "Stats"]

FIRST = 1e-4
RATIO = 1.1
BUCKETS = 170
"""Latencies from 0.1 ms to 1000 s, each bucket 10 % wider than the one before."""


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Counts since the client was made. A request that was sent three times counts once in
    `requests` and twice in `retries`."""

    requests: int = 0
    """Calls begun: Predict, status and metadata."""
    images: int = 0
    """Images answered, with a vector or with an error of their own."""
    image_errors: int = 0
    """Images among them that gave no vector."""
    failures: int = 0
    """Calls that ended with an error."""
    retries: int = 0
    """Attempts after the first of a call, hedges not counted."""
    hedges: int = 0
    """Attempts sent beside one that had not answered yet."""
    bytes_sent: int = 0
    """Of serialised requests, retries included, before compression."""
    bytes_received: int = 0
    """Of serialised replies."""
    in_flight: int = 0
    """Attempts whose reply is awaited now."""
    latency: dict[str, float] = field(default_factory=dict)
    """Seconds from sending an attempt to its reply: `p50`, `p90`, `p99`, `max`; within 10 %.
    Empty before the first reply."""


class Recorder:
    """Counts; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(
            (
                "requests",
                "images",
                "image_errors",
                "failures",
                "retries",
                "hedges",
                "bytes_sent",
                "bytes_received",
                "in_flight",
            ),
            0,
        )
        self._buckets = [0] * BUCKETS
        self._longest = 0.0

    def add(self, **counts: int) -> None:
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count

    def started(self, counter: str, *, sent: int) -> None:
        """An attempt of `sent` bytes is in flight, and counts as one of `counter`."""
        counts = self._counts
        with self._lock:
            counts[counter] += 1
            counts["in_flight"] += 1
            counts["bytes_sent"] += sent

    def replied(self, *, latency: float, received: int) -> None:
        """An attempt that was in flight has its reply of `received` bytes after `latency` s."""
        bucket = 0 if latency <= FIRST else math.ceil(math.log(latency / FIRST, RATIO))
        counts = self._counts
        with self._lock:
            counts["in_flight"] -= 1
            counts["bytes_received"] += received
            self._buckets[min(bucket, BUCKETS - 1)] += 1
            self._longest = max(self._longest, latency)

    def stats(self) -> Stats:
        with self._lock:
            counts, buckets = dict(self._counts), list(self._buckets)
            longest = self._longest
        return Stats(**counts, latency=_percentiles(buckets, longest))


def _percentiles(buckets: list[int], longest: float) -> dict[str, float]:
    total = sum(buckets)
    if not total:
        return {}
    found = {}
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        rank, seen = share * total, 0
        for bucket, count in enumerate(buckets):
            seen += count
            if seen >= rank:
                found[name] = min(longest, FIRST * RATIO**bucket)
                break
    return found | {"max": longest}
