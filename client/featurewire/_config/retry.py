"""When a call is sent again."""

from __future__ import annotations

from dataclasses import dataclass

from featurewire._config.checks import check_numbers, checked

__all__ = ["RetryConfig"]


@checked
@dataclass(frozen=True, kw_only=True)
class RetryConfig:
    """When a call is sent again. All attempts together stay within the call's timeout.

    Only failures that another attempt can cure are retried: an unreachable server, a broken
    connection, a full queue. Predict is idempotent, so an attempt whose fate is unknown is safe to
    repeat.
    """

    max_attempts: int = 5
    """Attempts in all, the first one included; 1 switches retries off. In a stream: attempts of one
    request that may end without a reply in time, from a server that is there."""
    initial_backoff: float = 0.1
    """Upper bound of the random wait before the first retry ("full jitter")."""
    max_backoff: float = 5.0
    """Upper bound of any such wait."""
    backoff_multiplier: float = 2.0
    """How the bound grows from one retry to the next."""
    budget: float = 20.0
    """Retries and hedges that the client may spend in a burst, over all its calls. Streams do not
    draw on it: when a server fails they probe it with one request at a time."""
    budget_ratio: float = 0.1
    """Retries that every success earns back: in the long run at most this share of traffic."""
    hedge_after: float | None = None
    """Send a second, equal request when the first has no reply after so long, and take whichever
    answers first. None: never. Set it near the 99th percentile of `stats().latency`."""

    def __post_init__(self) -> None:
        check_numbers(self, "max_attempts", low=1, whole=True)
        check_numbers(self, "initial_backoff", "max_backoff", "budget", "budget_ratio", low=0)
        check_numbers(self, "backoff_multiplier", low=1)
        if self.hedge_after is not None:
            check_numbers(self, "hedge_after", low=0, above=True)
