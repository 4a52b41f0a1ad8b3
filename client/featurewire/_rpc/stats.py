"""The client's counters and latency percentiles, in fixed memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

FIRST_SECONDS = 1e-4
RATIO = 1.1
BUCKETS = 170
"""Latencies from 0.1 ms to 1000 s, each bucket 10 % wider than the one before."""


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Counts since the client was created. A request that was sent three times counts once in
    `requests` and twice in `retries`."""

    requests: int = 0
    """Calls begun: Predict, status and metadata."""
    images: int = 0
    """Images answered, with a vector or with an error."""
    image_errors: int = 0
    """Images answered with an error."""
    failures: int = 0
    """Calls that ended with an error."""
    retries: int = 0
    """Attempts after a call's first one, without hedges."""
    hedges: int = 0
    """Attempts sent while an earlier one was not answered yet."""
    bytes_sent: int = 0
    """Bytes of serialised requests, including retries, before compression."""
    bytes_received: int = 0
    """Bytes of serialised replies."""
    in_flight: int = 0
    """Attempts that wait for their reply now."""
    latency: dict[str, float] = field(default_factory=dict)
    """Seconds from sending an attempt to its reply: `p50`, `p90`, `p99`, `max`; within 10 %.
    Empty before the first reply."""


class Latencies:
    """A histogram of latencies in seconds."""

    def __init__(self) -> None:
        self._buckets = [0] * BUCKETS
        self._longest = 0.0

    def add(self, seconds: float) -> None:
        bucket = (
            0 if seconds <= FIRST_SECONDS else math.ceil(math.log(seconds / FIRST_SECONDS, RATIO))
        )
        self._buckets[min(bucket, BUCKETS - 1)] += 1
        self._longest = max(self._longest, seconds)

    def percentiles(self) -> dict[str, float]:
        total = sum(self._buckets)
        if not total:
            return {}
        found = {}
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
            seen = 0
            for bucket, count in enumerate(self._buckets):
                seen += count
                if seen >= share * total:
                    found[name] = min(self._longest, FIRST_SECONDS * RATIO**bucket)
                    break
        return found | {"max": self._longest}
