"""Decides how a stream waits while no server answers. Does no I/O."""

from __future__ import annotations

import math

from featurewire._config import RetryConfig
from featurewire._rpc.retry import backoff


class CircuitBreaker:
    """Opens when no server answers. Then the stream sends only single probes, with backoff.

    It also measures how long calls have failed in a row, and says when patience has run out.
    """

    def __init__(self, retry: RetryConfig, patience: float) -> None:
        self._retry = retry
        self._patience = patience
        self._since: float | None = None
        self._probes = 0
        self._probe_at = -math.inf
        self.is_open = False

    def record_failure(self, now: float) -> bool:
        """Record a failed call. Returns False once calls have failed for longer than `patience`."""
        if self._since is None:
            self._since = now
        return now - self._since <= self._patience

    def add_paused_time(self, seconds: float) -> None:
        """Exclude time during which the consumer had control from the time of failure."""
        if self._since is not None:
            self._since += seconds

    def probe_later(self, now: float) -> None:
        """No server answers: schedule the next probe."""
        if self.is_open and now < self._probe_at:
            return  # the call was sent before the breaker opened
        self.is_open = True
        self._probes += 1
        self._probe_at = now + backoff(self._retry, self._probes)

    def blocks(self, now: float) -> bool:
        """Whether to hold back all requests until the next probe."""
        return self.is_open and now < self._probe_at

    def not_before(self, time: float) -> float:
        """The time at which a request that is due at `time` may be sent."""
        return max(time, self._probe_at) if self.is_open else time

    def end(self) -> bool:
        """Record an answer, which closes the breaker. Returns whether it was open."""
        self._since = None
        ended, self.is_open, self._probes = self.is_open, False, 0
        return ended
