"""How a stream waits for a server that is gone. Decides; fed with what happened."""

from __future__ import annotations

import math

from featurewire._config import RetryConfig
from featurewire._rpc.retry import backoff

__all__ = ["Outage"]


class Outage:
    """Counts trouble from the first failure without a reply since; spaces the probes of an outage.

    During an outage the stream waits and probes with one request at a time.
    """

    def __init__(self, retry: RetryConfig, patience: float) -> None:
        self._retry = retry
        self._patience = patience
        self._since: float | None = None
        self._probes = 0
        self._probe_at = -math.inf
        self.is_on = False

    def trouble(self, now: float) -> bool:
        """Something failed; True while patience lasts."""
        if self._since is None:
            self._since = now
        return now - self._since <= self._patience

    def excuse(self, seconds: float) -> None:
        """Time that the consumer took does not count."""
        if self._since is not None:
            self._since += seconds

    def probe_later(self, now: float) -> None:
        """No server answers: schedule the next probe."""
        if self.is_on and now < self._probe_at:
            return  # sent before the outage was known
        self.is_on = True
        self._probes += 1
        self._probe_at = now + backoff(self._retry, self._probes)

    def holds(self, now: float) -> bool:
        """Whether to hold back all requests until the next probe."""
        return self.is_on and now < self._probe_at

    def earliest(self, time: float) -> float:
        """When what would be sent at `time` is."""
        return max(time, self._probe_at) if self.is_on else time

    def end(self) -> bool:
        """A server answered; True if that ends an outage."""
        self._since = None
        ended, self.is_on, self._probes = self.is_on, False, 0
        return ended
