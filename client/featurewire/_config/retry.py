"""Configuration of retries."""

from __future__ import annotations

from dataclasses import dataclass

from featurewire._config.checks import check_numbers, checked


@checked
@dataclass(frozen=True, kw_only=True)
class RetryConfig:
    """When and how often a call is retried. All attempts share the call's timeout.

    Only failures that can pass are retried: an unreachable server, a broken connection, a full
    queue. Predict is idempotent, so it is safe to repeat an attempt whose outcome is unknown.
    """

    max_attempts: int = 5
    """Maximum number of attempts, including the first; 1 switches retries off. In a stream: the
    number of attempts of one request that may time out while the server is reachable."""
    initial_backoff: float = 0.1
    """Upper bound of the random wait before the first retry ("full jitter")."""
    max_backoff: float = 5.0
    """Upper bound of the wait before any retry."""
    backoff_multiplier: float = 2.0
    """Factor by which the bound grows from one retry to the next."""
    budget: float = 20.0
    """Number of retries and hedges that the client may send in a burst, over all its calls. Streams
    do not use it: they probe a failing server with one request at a time."""
    budget_ratio: float = 0.1
    """Retries that each success adds to the budget. In the long run, retries are at most this share
    of the traffic."""
    hedge_after: float | None = None
    """Send the request again if no reply comes within this time, and use whichever reply comes
    first. None: never. Set it near the 99th percentile of `stats().latency`."""

    def __post_init__(self) -> None:
        check_numbers(self, "max_attempts", low=1, whole=True)
        check_numbers(self, "initial_backoff", "max_backoff", "budget", "budget_ratio", low=0)
        check_numbers(self, "backoff_multiplier", low=1)
        if self.hedge_after is not None:
            check_numbers(self, "hedge_after", low=0, above=True)
