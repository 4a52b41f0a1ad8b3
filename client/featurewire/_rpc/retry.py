"""Decides when to retry: backoff with jitter, and a budget for all calls of a client."""

from __future__ import annotations

import random
import threading

from featurewire._config import RetryConfig
from featurewire._errors import (
    DeadlineExceededError,
    FeaturewireError,
    ModelNotFoundError,
    ServerUnavailableError,
    is_transient,
)
from featurewire._rpc.call import Call
from featurewire._rpc.rotation import Rotation


def backoff(config: RetryConfig, failures: int) -> float:
    """Seconds to wait after the `failures`-th failure in a row: "full jitter".

    Uniform between 0 and an exponentially growing bound, so that clients that failed together do
    not come back together.
    """
    bound = config.initial_backoff * config.backoff_multiplier ** min(failures - 1, 60)
    return random.uniform(0, min(config.max_backoff, bound))


def wait_before_retry(config: RetryConfig, failures: int, error: FeaturewireError) -> float | None:
    """Seconds to wait after `error`; None if the server asked not to retry.

    If the server sent a push-back, wait that long plus up to 50 % jitter, so that clients that were
    rejected together do not retry together.
    """
    if error.retry_after is None:
        return backoff(config, failures)
    if error.retry_after < 0:
        return None
    return error.retry_after * random.uniform(1.0, 1.5)


class RetryBudget:
    """A token bucket: a retry takes one token, a success puts back a fraction. Thread-safe.

    The budget bounds the retries of all calls together, so that they do not multiply the load on an
    overloaded server.
    """

    def __init__(self, config: RetryConfig) -> None:
        self._lock = threading.Lock()
        self._capacity = config.budget
        self._tokens = config.budget
        self._earned = config.budget_ratio

    def succeeded(self) -> None:
        if self._tokens >= self._capacity:
            return
        with self._lock:
            self._tokens = min(self._capacity, self._tokens + self._earned)

    def __str__(self) -> str:
        return f"{self._tokens:.0f} of {self._capacity:.0f} retries of the client's budget"

    def spend(self) -> bool:
        """Take a token for a retry; False if the bucket is empty."""
        with self._lock:
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


class RetryPolicy:
    """Retries a call outside a stream, limited by `max_attempts`, the deadline and the budget."""

    def __init__(self, config: RetryConfig, budget: RetryBudget, rotation: Rotation) -> None:
        self.config = config
        self._budget = budget
        self._rotation = rotation

    def __call__(self, call: Call, error: FeaturewireError, now: float) -> float | None:
        """Seconds to wait before the next attempt; None to give up."""
        delay = self._delay(call, error, now)
        if delay is None:
            self.explain(call, error, now)
        return delay

    def _delay(self, call: Call, error: FeaturewireError, now: float) -> float | None:
        if call.failures >= self.config.max_attempts:
            return None
        elsewhere = self.helps_elsewhere(error) or isinstance(error, DeadlineExceededError)
        if elsewhere and self.has_other(call, now):
            delay: float | None = 0.0
        elif is_transient(error):
            delay = wait_before_retry(self.config, call.failures, error)
        else:
            return None
        if delay is None or now + delay >= call.deadline or not self._budget.spend():
            return None
        return delay

    def explain(self, call: Call, error: FeaturewireError, now: float) -> None:
        """Add the number of attempts, the time and the rest of the budget to the error text."""
        retried = is_transient(error) or call.failures > 1
        if retried and call.began is not None:
            tries = "1 attempt" if call.failures == 1 else f"{call.failures} attempts"
            error.args = (
                f"{error._problem} ({tries} in {now - call.began:.1f} s; {self._budget} left)",
            )

    @staticmethod
    def helps_elsewhere(error: FeaturewireError) -> bool:
        """Whether another server may succeed: this one is unreachable or lacks the model."""
        return isinstance(error, (ServerUnavailableError, ModelNotFoundError))

    def has_other(self, call: Call, now: float) -> bool:
        """Whether a server that this call has not tried is not known to be down."""
        return self._rotation.has_other(now, call.tried)
