"""Decides when to send the attempts of one call, and to which server. Does no I/O.

Both drivers, blocking and asyncio, run a `Job` with the same loop until it is `finished`: start the
attempts from `due`, wait for an outcome or for `wake_at`, report the outcome, and cancel the
attempts from `obsolete`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from featurewire._errors import (
    DeadlineExceededError,
    FeaturewireError,
    ServerUnavailableError,
    is_transient,
)
from featurewire._rpc.exclusive import POLL_SECONDS, WAIT_SECONDS, ExclusiveSlot
from featurewire._rpc.rotation import Rotation

Decide = Callable[["Call", FeaturewireError, float], "float | None"]


@dataclass(eq=False)
class Attempt:
    """One RPC of a call: the first try, a retry or a hedge."""

    call: Call
    server: int
    timeout: float | None
    started: float
    kind: Literal["first", "retry", "hedge"]


class Job(Protocol):
    """The interface between a driver and the logic that decides what it sends."""

    @property
    def finished(self) -> bool: ...

    def due(self, now: float) -> list[Attempt]:
        """Attempts to start now."""

    def wake_at(self) -> float:
        """When to call `due` again if nothing happens before; infinity for never."""

    def replied(self, attempt: Attempt, reply: bytes, now: float) -> None: ...

    def failed(self, attempt: Attempt, error: FeaturewireError, now: float) -> None: ...

    def abandon(self) -> None:
        """End without an outcome."""

    def obsolete(self) -> list[Attempt]:
        """Attempts to cancel, each returned once; their outcomes are ignored."""


class Call:
    """One request and its attempts, until it has a reply or a final error."""

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
        slot: ExclusiveSlot | None = None,
        exclusive: bool = False,
    ) -> None:
        self.method = method
        self.request = request
        self.deadline = deadline
        self.bulk = bulk
        """Whether the server may run interactive calls first."""
        self.failures = 0
        self.began: float | None = None
        self.exclusive = exclusive
        """Send this call only if no other call of the client is in flight."""
        self.not_isolated = False
        """Other calls of the client were always in flight, so this call was not sent."""
        self._slot = slot
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
            left /= 2  # keep half of the time for another server, in case this one still hangs
        if self.began is None:
            self.began = now
        self.tried.add(server)
        timeout = None if math.isinf(left) else max(left, 0.001)
        attempt = Attempt(self, server, timeout, now, kind)
        self._open.append(attempt)
        return attempt

    def _is_admitted(self, now: float) -> bool:
        slot = self._slot
        if slot is None or (slot.holder is None and not self.exclusive):
            return True
        if slot.admits(self, self.exclusive, now):
            return True
        self._asked_at = now if self._asked_at is None else self._asked_at
        self._next_at = now + POLL_SECONDS
        if self.exclusive and now >= min(self._asked_at + WAIT_SECONDS, self.deadline):
            self.not_isolated = True
            self._finish()
        return False

    def wake_at(self) -> float:
        if self.finished:
            return math.inf
        return self._hedge_at if self._open else self._next_at

    def cancel_backoff(self) -> None:
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
        if self._slot is not None:
            self._slot.release(self)
        self._obsolete, self._open = self._obsolete + self._open, []

    def obsolete(self) -> list[Attempt]:
        obsolete, self._obsolete = self._obsolete, []
        return obsolete
