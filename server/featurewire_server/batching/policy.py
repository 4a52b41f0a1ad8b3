"""The tuning constants of the schedule."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Policy:
    """All tuning constants of this package, with their units and the reasons for their values."""

    margin: float = 0.2
    """Fraction by which a batch may take longer than expected, because the next batch overlaps and
    slows it down. The margin is generous: an accepted call that is answered too late costs more
    than a refused one."""
    recent_batches: int = 3
    """Number of batches in the median. With three, one delayed batch does not matter, and two
    batches are enough to show that the machine has changed."""
    recent_seconds: float = 2.0
    """Maximum age of the measurements that may refuse a call, in addition to the last
    `recent_batches`. It is short, so that a disturbance is soon forgotten. Also how long a queue
    counts as overloaded after a refusal."""
    handover_seconds: float = 0.02
    """How early the next batch starts before the running one ends. A batch is decoded within this
    time, and the callers of a closed loop come back within it."""
    bulk_share: float = 0.2
    """Fraction of the time that bulk gets while interactive tasks are also waiting."""
    bulk_seconds: float = 1.3
    """Maximum time of a bulk batch while interactive calls arrive. An interactive caller then
    waits for 0.7 s on average, and the batches are still large enough to be efficient."""
    interactive_seconds: float = 10.0
    """How long bulk batches stay short after an interactive call, because people look at an answer
    for a few seconds before they ask again."""
    kept: int = 64
    """Maximum number of idle queues per version, of measured batches per queue, and of remembered
    ends of batches. It bounds the memory, because callers can create a queue per set of outputs."""


POLICY = Policy()
