"""Chooses the server for each attempt."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Sequence

log = logging.getLogger("featurewire")

FIRST_REST_SECONDS = 0.5
MAX_REST_SECONDS = 10.0


class Rotation:
    """Round robin over the servers. A server that is unreachable or hangs is skipped for a while.

    This rest doubles with each failure in a row. After it, one call at a time tries the server. If
    all servers rest, the one whose rest ends first is chosen. Thread-safe.
    """

    def __init__(self, servers: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._servers = servers
        self._next = 0
        self._rests_until = [0.0] * len(servers)
        self._failures = [0] * len(servers)

    def __len__(self) -> int:
        return len(self._failures)

    def pick(self, now: float, avoid: Collection[int] = ()) -> int:
        """The server for an attempt at `now`. One of `avoid` only if all servers are in it."""
        count = len(self._failures)
        if count == 1:
            return 0
        with self._lock:
            order = [(self._next + step) % count for step in range(count)]
            choice = min(
                order,
                key=lambda each: (each in avoid, max(self._rests_until[each], now)),
            )
            self._next = (choice + 1) % count
            if self._failures[choice]:  # the next calls skip it until this one has an outcome
                self._rests_until[choice] = now + self._rest(choice)
            return choice

    def _rest(self, server: int) -> float:
        rest: float = FIRST_REST_SECONDS * 2 ** min(self._failures[server] - 1, 10)
        return min(MAX_REST_SECONDS, rest)

    def on_probation(self, server: int, tried: Collection[int]) -> bool:
        """Whether the server failed last time and another one, not yet tried, did not."""
        if not self._failures[server]:
            return False
        return any(
            not failures and each not in tried for each, failures in enumerate(self._failures)
        )

    def failed(self, server: int, now: float) -> None:
        with self._lock:
            self._failures[server] += 1
            self._rests_until[server] = now + self._rest(server)
        if len(self._failures) > 1:
            log.debug("%s is not used for %.1f s", self._servers[server], self._rest(server))

    def succeeded(self, server: int) -> None:
        if self._failures[server]:
            with self._lock:
                self._failures[server] = 0
                self._rests_until[server] = 0.0

    def has_other(self, now: float, avoid: Collection[int]) -> bool:
        """Whether a server outside `avoid` is not resting."""
        with self._lock:
            return any(
                each not in avoid and until <= now for each, until in enumerate(self._rests_until)
            )
