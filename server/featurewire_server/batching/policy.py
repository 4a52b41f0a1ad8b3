"""The constants of the schedule."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Policy:
    """All tuning constants of this package, with their units and the reasons for their values."""

    margin: float = 0.2
    """Fraction by which a batch may take longer than expected. A promise that is not kept costs
    more than a refusal, and the batch that overlaps this one slows it down."""
    recent_batches: int = 3
    """Number of batches whose times count. With the median of three, one delayed batch changes
    nothing, and two batches show that the machine has changed."""
    recent_seconds: float = 2.0
    """Age of the measurements that may refuse a call, in addition to the last `recent_batches`: a
    disturbance is soon forgotten. Also how long a queue counts as overloaded after a refusal."""
    handover_seconds: float = 0.02
    """How early the next batch starts before the running one ends, which is time to decode a batch.
    Callers in a closed loop come back within this time."""
    bulk_share: float = 0.2
    """Fraction of the time for bulk if interactive tasks are waiting also."""
    bulk_seconds: float = 1.3
    """Longest batch of bulk while interactive calls come: a caller then waits for 0.7 s on
    average, and batches are still large enough to be fast."""
    interactive_seconds: float = 10.0
    """How long after an interactive call batches of bulk stay short: people look at an answer for
    a few seconds before they ask again."""
    kept: int = 64
    """How many idle queues per version, measured batches per queue and ends of batches are kept.
    Callers can make a queue per set of outputs, so memory must be bounded."""


POLICY = Policy()
