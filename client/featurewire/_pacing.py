"""How fast a stream sends: the window of requests in flight, and the pause of an outage.

Pure decisions, fed with what happened.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from featurewire._config import RetryConfig, StreamConfig
from featurewire._retry import backoff

__all__ = ["Outage", "Window"]

GAIN = 1.03
"""A step up pays when it raises throughput by this factor, or by half of what it adds."""
LOSS = 0.98
"""A step down stands when it keeps this much of the throughput."""
PRICE = 0.8
"""The share of a step that throughput must follow where requests wait: see `Window._needs`."""
ALONE = 0.35
"""Where throughput follows a step by less than this share, hardly anybody else is there."""
WAIT_ALONE = 1.25
"""Requests that may wait where we are alone: one keeps the server busy."""
WAIT = 0.5
"""Those that may wait beside others."""
ROUNDS = 2.5
"""A request that is answered within so many rounds of replies waits for nobody but its like."""
RISEN = 1.15
"""Latency over the least, up to which it may be chance."""
FORGET = 1.002
"""By how much the least latency rises with each epoch, because servers change."""
TURNS = 4
"""An epoch's replies, over requests in flight."""
FEWEST = 12
"""An epoch's replies at least."""
SHORTEST = 0.25
"""Seconds an epoch lasts at least."""
TOGETHER = 0.06
"""Replies closer than this share of their usual distance come from one batch of the server."""
AT_ONCE = 0.0003
"""So do those closer than these seconds."""
REST = 4
"""Epochs from a step that did not pay to the next try; doubles up to `LONGEST_REST`."""
LONGEST_REST = 16


@dataclass(frozen=True)
class _Epoch:
    limit: int
    rate: float
    """Images a second."""
    latency: float
    """Seconds, the least."""
    rounds: float
    """In how many bunches `limit` replies come."""

    def waiting(self, least: float) -> float:
        """Requests in flight beyond what the least latency needs.

        Brakmo, Peterson, "TCP Vegas", IEEE JSAC 13(8), 1995.
        """
        return self.limit * (1 - least / self.latency) if self.latency else 0.0


class Window:
    """How many requests a stream keeps in flight.

    Throughput rises with requests in flight until the server is saturated; from there on a larger
    window only makes requests wait, those of others too. So the window tries a step up and a step
    down in turn, measures images a second over an epoch of replies, and takes the step back when it
    does not pay. A full queue halves the window; an outage shrinks it to a probe of one request
    until somebody answers.
    """

    def __init__(self, config: StreamConfig) -> None:
        self._low = config.min_in_flight
        self._high = config.max_in_flight
        self._limit = min(self._high, max(self._low, config.initial_in_flight))
        self._base: _Epoch | None = None
        """What the size before the step on trial reached; None while none is on trial."""
        self._kept = 0.0
        """The rate from which a row of steps down began: they may not lose it bit by bit."""
        self._up = True
        self._coarse = True
        """No step has failed yet: they are large."""
        self._rest = 0
        self._rests = REST
        self._least = math.inf
        """Seconds that a request takes which waits for nothing."""
        self._probing = False
        self._halved_at: float | None = None
        self._skip = 0
        self._last = -math.inf
        self._latency = math.inf
        self._begin(None)

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        return 1 if self._probing else self._limit

    def replied(self, *, images: int, latency: float, now: float, saturated: bool) -> None:
        """A request of `images` images was answered after `latency` seconds.

        `saturated`: the stream had more to send than the window let it.
        """
        if self._probing:
            self._probing = False
            self._move(max(self._low, self._limit // 2))
            return
        apart = now - self._last > max(AT_ONCE, TOGETHER * latency / self._limit)
        self._last = now
        self._least = min(latency, self._least)
        if not saturated or self._skip:
            # The source is the limit, or it was sent under the size before: nothing to be learned.
            self._skip = max(0, self._skip - 1) if saturated else self._skip
            self._begin(None)
            return
        if self._since is None:
            self._begin(now)
            return
        self._replies += 1
        self._images += images
        self._bunches += apart
        self._latency = min(self._latency, latency)
        elapsed = now - self._since
        if self._replies >= max(FEWEST, TURNS * self._limit) and elapsed >= SHORTEST:
            rounds = self._limit * max(1, self._bunches) / self._replies
            seen = _Epoch(self._limit, self._images / elapsed, self._latency, rounds)
            self._least *= FORGET
            self._judge(seen)
            self._begin(now)

    def overloaded(self, now: float) -> None:
        """The server's queue is full."""
        if self._halved_at is not None and now - self._halved_at < SHORTEST:
            return  # the same full queue, seen by other requests
        self._halved_at = now
        self._rest = REST
        self._move(max(self._low, self._limit // 2))

    def unreachable(self) -> None:
        """Nobody answers: probe with one request at a time."""
        self._probing = True

    def _begin(self, now: float | None) -> None:
        self._since = now
        self._replies = self._images = self._bunches = 0
        self._latency = math.inf

    def _move(self, limit: int) -> None:
        """Another size, not on trial."""
        self._skip = self._limit
        self._limit = limit
        self._base = None
        self._begin(None)

    def _judge(self, seen: _Epoch) -> None:
        base, self._base = self._base, None
        if base is None:
            if self._rest:
                self._rest -= 1
            else:
                self._step(seen)
        elif seen.rate >= self._needs(base, seen):
            self._kept = 0.0 if self._up else max(self._kept, base.rate)
            self._rests = REST
            self._step(seen)
        else:
            self._move(base.limit)
            self._turn()

    def _needs(self, base: _Epoch, seen: _Epoch) -> float:
        """The rate at which the step on trial pays.

        Beside other streams a larger window takes from theirs: throughput follows the step by the
        share that they have. Where requests wait already, that is no gain. So it has to follow
        nearly in full, and more so the more of ours are in flight: then those who have much give
        it up, and streams beside each other meet at equal shares. Where it follows hardly at all
        we are alone, and may keep one waiting.
        """
        larger = seen if self._up else base
        growth, waiting = seen.limit / base.limit, larger.waiting(self._least)
        alone = abs(math.log(seen.rate / base.rate)) <= ALONE * abs(math.log(growth))
        if (
            larger.rounds > ROUNDS
            and waiting > (WAIT_ALONE if alone else WAIT)
            and larger.latency > RISEN * self._least
        ):
            return float(base.rate * growth ** max(PRICE, 1 - 0.5 / larger.rounds))
        if self._up:
            return base.rate * min(GAIN, math.sqrt(growth))
        return LOSS * max(base.rate, self._kept)

    def _step(self, seen: _Epoch) -> None:
        """Try the next size: by a batch of the server's, or an eighth."""
        step = max(1, round(self._limit / seen.rounds), self._limit // 8)
        if self._up and self._coarse:
            step = max(step, self._limit // 2)
        size = self._limit + step if self._up else max(1, self._limit - step)
        size = min(self._high, max(self._low, size))
        if size == self._limit:
            self._turn()
        else:
            self._move(size)
            self._base = seen

    def _turn(self) -> None:
        """Try the other way, after a rest."""
        self._up, self._coarse, self._kept = not self._up, False, 0.0
        self._rest = self._rests
        self._rests = min(LONGEST_REST, self._rests * 2)


class Outage:
    """Counts trouble from the first failure without a reply since; spaces the probes of an outage.

    In an outage the whole stream waits, and one request at a time finds out its end.
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
        """Nobody answers."""
        if self.is_on and now < self._probe_at:
            return  # sent before the outage was known
        self.is_on = True
        self._probes += 1
        self._probe_at = now + backoff(self._retry, self._probes)

    def holds(self, now: float) -> bool:
        """Nothing is to be sent yet."""
        return self.is_on and now < self._probe_at

    def earliest(self, time: float) -> float:
        """When what would be sent at `time` is."""
        return max(time, self._probe_at) if self.is_on else time

    def end(self) -> bool:
        """Somebody answered; True when that ends an outage."""
        self._since = None
        ended, self.is_on, self._probes = self.is_on, False, 0
        return ended
