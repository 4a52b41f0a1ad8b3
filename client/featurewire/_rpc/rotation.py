"""Which server an attempt goes to."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Sequence

__all__ = ["Rotation"]

log = logging.getLogger("featurewire")

FIRST_REST = 0.5
LONGEST_REST = 10.0


class Rotation:
    """Round robin over the servers; a server that is unreachable or hangs rests for a while.

    The rest doubles from one failure to the next; after it one call at a time tries the server
    again. When all rest, the one whose rest ends first is chosen: there is always an answer.
    Thread-safe.
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
        """The server for an attempt at `now`; one of `avoid` only when nothing else is left."""
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
            if self._failures[choice]:  # one try at a time
                self._rests_until[choice] = now + self._rest(choice)
            return choice

    def _rest(self, server: int) -> float:
        rest: float = FIRST_REST * 2 ** min(self._failures[server] - 1, 10)
        return min(LONGEST_REST, rest)

    def on_probation(self, server: int, tried: Collection[int]) -> bool:
        """It failed the last time, and another server, not yet tried, did not."""
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
        """Some server outside `avoid` is not resting."""
        with self._lock:
            return any(
                each not in avoid and until <= now for each, until in enumerate(self._rests_until)
            )
