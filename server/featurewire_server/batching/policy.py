"""The numbers that the schedule goes by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Every tuning constant of the package, with its unit and the reason for its value."""

    margin: float = 0.2
    """Fraction by which a batch may take longer than expected. A promise that is not kept costs
    more than a refusal, and the batch that overlaps this one slows it down."""
    recent_batches: int = 3
    """Batches of one size whose times count. With the median of three, one that was held up changes
    nothing, and a machine that has changed is known after two."""
    recent_seconds: float = 2.0
    """For this long, or for the time of `recent_batches` if that is longer, a measurement may
    refuse calls without being repeated, and a refusal means overload. Nobody should be refused for
    longer on hearsay."""
    handover_seconds: float = 0.02
    """How early the next batch starts before the running one ends, which is time to decode a batch.
    Callers of a closed loop come back within this time after it has ended."""
    bulk_share: float = 0.2
    """Fraction of the time that bulk gets while interactive tasks wait as well."""
    bulk_seconds: float = 1.3
    """Longest batch of bulk while interactive calls come: a caller then waits for 0.7 s on
    average, and batches are still large enough to be fast."""
    interactive_seconds: float = 10.0
    """How long after an interactive call batches of bulk stay short: people look at an answer for
    a few seconds before they ask again."""
    idle_queues: int = 64
    """Queues of a version that keep their measurements while nothing waits in them. Callers make a
    queue per set of outputs, and must not fill the memory with them."""

    def recent(self, batch_seconds: float) -> float:
        """Seconds for which a measurement of such a batch counts."""
        return max(self.recent_seconds, self.recent_batches * batch_seconds)


POLICY = Policy()
