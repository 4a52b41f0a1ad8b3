"""One logical RPC: attempts, hedges, deadline, and the servers they go to. Decides; shells send.

Both shells drive a `Job` the same way: start what `due` gives, wait for an outcome or for
`wake_at`, report it, cancel what is `obsolete`, until `finished`.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Collection, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from featurewire._errors import (
    DeadlineExceededError,
    FeaturewireError,
    ServerUnavailableError,
)
from featurewire._quiet import POLL, WAIT, Quiet
from featurewire._retry import is_transient

__all__ = ["Attempt", "Call", "Decide", "Flow", "Job", "Rotation", "T"]

log = logging.getLogger("featurewire")

Decide = Callable[["Call", FeaturewireError, float], "float | None"]


@dataclass(eq=False)
class Attempt:
    """One RPC to send."""

    call: Call
    server: int
    timeout: float | None
    started: float
    kind: Literal["first", "retry", "hedge"]


class Job(Protocol):
    """What a shell drives."""

    @property
    def finished(self) -> bool: ...

    def due(self, now: float) -> list[Attempt]:
        """Attempts to start now."""

    def wake_at(self) -> float:
        """When to ask `due` again though nothing happened; infinity for never."""

    def replied(self, attempt: Attempt, reply: bytes, now: float) -> None: ...

    def failed(self, attempt: Attempt, error: FeaturewireError, now: float) -> None: ...

    def abandon(self) -> None:
        """End without an outcome."""

    def obsolete(self) -> list[Attempt]:
        """Attempts to cancel, given once; what they answer is ignored."""


T = TypeVar("T")
Flow = Generator["Job | float | tuple[Future[None], float]", None, T]
"""The steps of a method: yields what to wait for, a job, seconds, or a future
and until when, and returns the result."""


class Call:
    """One request and its attempts, up to a reply or a final error."""

    def __init__(
        self,
        method: str,
        request: bytes,
        *,
        rotation: Rotation,
        decide: Decide,
        deadline: float = math.inf,
        attempt_timeout: float | None = None,
        hedge_after: float | None = None,
        may_hedge: Callable[[], bool] = lambda: True,
        bulk: bool = False,
        quiet: Quiet | None = None,
        alone: bool = False,
    ) -> None:
        self.method = method
        self.request = request
        self.deadline = deadline
        self.bulk = bulk
        """One of many: whoever waits for a single answer goes first."""
        self.failures = 0
        self.began: float | None = None
        self.alone = alone
        """It goes while nothing else of the client is in flight."""
        self.given_up = False
        """It never was alone, and was not sent."""
        self._quiet = quiet
        self._asked_at: float | None = None
        self.tried: set[int] = set()
        self.reply: bytes | None = None
        self.error: FeaturewireError | None = None
        self.finished = False
        self._rotation = rotation
        self._decide = decide
        self._attempt_timeout = attempt_timeout
        self._hedge_after = hedge_after
        self._may_hedge = may_hedge
        self._open: list[Attempt] = []
        self._next_at = -math.inf
        self._hedge_at = math.inf
        self._obsolete: list[Attempt] = []

    @property
    def in_flight(self) -> bool:
        return bool(self._open)

    def due(self, now: float) -> list[Attempt]:
        if self.finished:
            return []
        if self._open:
            if now < self._hedge_at:
                return []
            self._hedge_at = math.inf
            return [self._start(now, "hedge")] if self._may_hedge() else []
        if now < self._next_at or not self._is_admitted(now):
            return []
        if self._hedge_after is not None:
            self._hedge_at = now + self._hedge_after
        return [self._start(now, "retry" if self.failures else "first")]

    def _start(self, now: float, kind: Literal["first", "retry", "hedge"]) -> Attempt:
        left = self.deadline - now
        if self._attempt_timeout is not None:
            left = min(left, self._attempt_timeout)
        server = self._rotation.pick(now, self.tried)
        if self._rotation.on_probation(server, self.tried):
            left /= 2  # what is left is for another server, should this one still hang
        if self.began is None:
            self.began = now
        self.tried.add(server)
        timeout = None if math.isinf(left) else max(left, 0.001)
        attempt = Attempt(self, server, timeout, now, kind)
        self._open.append(attempt)
        return attempt

    def _is_admitted(self, now: float) -> bool:
        quiet = self._quiet
        if quiet is None or (quiet.holder is None and not self.alone):
            return True
        if quiet.admits(self, self.alone, now):
            return True
        self._asked_at = now if self._asked_at is None else self._asked_at
        self._next_at = now + POLL
        if self.alone and now >= min(self._asked_at + WAIT, self.deadline):
            self.given_up = True
            self._finish()
        return False

    def wake_at(self) -> float:
        if self.finished:
            return math.inf
        return self._hedge_at if self._open else self._next_at

    def hurry(self) -> None:
        """End the backoff: the server is known to answer again."""
        self._next_at = -math.inf

    # `now` is for the other calls, which measure latency.
    def replied(self, attempt: Attempt, reply: bytes, now: float) -> None:  # noqa: ARG002
        self._rotation.succeeded(attempt.server)
        if attempt not in self._open:
            return
        self._open.remove(attempt)
        self.reply = reply
        self._finish()

    def failed(self, attempt: Attempt, error: FeaturewireError, now: float) -> None:
        if isinstance(error, (ServerUnavailableError, DeadlineExceededError)):
            self._rotation.failed(attempt.server, now)
        if attempt not in self._open:
            return
        self._open.remove(attempt)
        if self._open and (is_transient(error) or isinstance(error, DeadlineExceededError)):
            return  # its hedge may still answer
        self.failures += 1
        delay = self._decide(self, error, now)
        if delay is None:
            self.error = error
            self._finish()
        else:
            self._next_at = now + delay
            if len(self.tried) >= len(self._rotation):
                self.tried.clear()

    def abandon(self) -> None:
        """End without an outcome."""
        self._finish()

    def _finish(self) -> None:
        self.finished = True
        if self._quiet is not None:
            self._quiet.release(self)
        self._obsolete, self._open = self._obsolete + self._open, []

    def obsolete(self) -> list[Attempt]:
        obsolete, self._obsolete = self._obsolete, []
        return obsolete


FIRST_REST = 0.5
LONGEST_REST = 10.0


class Rotation:
    """Round robin over the servers; one that cannot be reached, or hangs, rests for a while.

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
            log.debug("%s rests for %.1f s", self._servers[server], self._rest(server))

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
