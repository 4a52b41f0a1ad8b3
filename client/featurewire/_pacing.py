"""How fast a stream sends: the window of requests in flight, and the pause of an outage.

Pure decisions, fed with what happened.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from featurewire._config import RetryConfig, StreamConfig
from featurewire._retry import backoff

__all__ = ["Outage", "Window"]

GAIN = 1.05
"""A step up pays when it raises throughput by this factor."""
LOSS = 0.98
"""A step down stands when it keeps this much of the throughput."""
RISEN = 2.0
"""Latency over that of the chosen size, from which on it counts as risen."""
QUEUED = 1.5
"""Requests that may wait at the server: one keeps it busy, more only hold up others."""
SHARE = 0.8
"""The share of a step up that throughput must follow where requests wait already."""
FORGET = 1.002
"""By how much the least latency rises with each reply, because servers change."""
TURNS = 4
"""An epoch's replies, over requests in flight: batching servers answer in bunches."""
SHORTEST = 0.25
"""Seconds an epoch lasts at least."""
REST = 8
"""Epochs from a step that did not pay to the next try; doubles up to `LONGEST_REST`."""
LONGEST_REST = 32


@dataclass(frozen=True)
class _Measured:
    limit: int
    rate: float
    """Images a second."""
    latency: float
    """Seconds a request, mean."""


class Window:
    """How many requests a stream keeps in flight.

    Throughput rises with requests in flight until the server is saturated; from there on only
    latency rises, for others too. The window climbs towards that knee: it measures throughput over
    an epoch of replies, grows while growth pays, and takes the last step back when it does not.
    Latency says which way to look next: where more than one request only waits, fewer are tried,
    and kept when the throughput stays. A full queue halves the window; an outage shrinks it to a
    probe of one request until somebody answers.
    """

    def __init__(self, config: StreamConfig) -> None:
        self._low = config.min_in_flight
        self._high = config.max_in_flight
        self._limit = min(self._high, max(self._low, config.initial_in_flight))
        self._base: _Measured | None = None
        """What the size before the step on trial reached; None while none is on trial."""
        self._chosen: _Measured | None = None
        """What the current size reached when it was chosen."""
        self._rest = 0
        self._rests = REST
        self._least = math.inf
        """Seconds that a request takes which waits for nothing."""
        self._fine = False
        """A large step up did not pay: the next one is small."""
        self._kept = 0.0
        """The rate from which a row of steps down began: they may not lose it bit by bit."""
        self._probing = False
        self._halved_at: float | None = None
        self._skip = 0
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
        self._least = min(latency, self._least * FORGET)
        if not saturated:  # the source is the limit: nothing to be learned of the server
            self._begin(None)
            return
        if self._skip:  # sent under the size before
            self._skip -= 1
            self._begin(None)
            return
        if self._since is None:
            self._begin(now)
            return
        self._replies += 1
        self._images += images
        self._latency += latency
        elapsed = now - self._since
        if self._replies >= TURNS * self._limit and elapsed >= SHORTEST:
            self._judge(
                _Measured(self._limit, self._images / elapsed, self._latency / self._replies)
            )
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
        self._replies = self._images = 0
        self._latency = 0.0

    def _move(self, limit: int) -> None:
        """Another size, not on trial."""
        self._skip = self._limit
        self._limit = limit
        self._base = self._chosen = None
        self._begin(None)

    def _queued(self, measured: _Measured) -> float:
        """How many of the requests in flight only wait: those beyond what the least latency needs.

        Brakmo, Peterson, "TCP Vegas", IEEE JSAC 13(8), 1995.
        """
        return measured.limit * (1 - self._least / measured.latency) if measured.latency else 0.0

    def _judge(self, measured: _Measured) -> None:
        if self._base is not None:
            self._end_trial(measured)
        elif self._rest:
            self._rest -= 1
            if self._chosen is None:
                self._chosen = measured
            elif measured.latency > RISEN * self._chosen.latency and (
                measured.rate <= self._chosen.rate
            ):
                self._try_less(measured)
        elif self._queued(measured) > QUEUED:
            self._try_less(measured)
        else:
            self._try_more(measured)

    def _try_more(self, measured: _Measured) -> None:
        step = 1 if self._fine else self._limit // 2
        larger = min(self._high, self._limit + max(1, step))
        if larger == self._limit:
            self._rest = self._rests
            self._chosen = measured
            return
        self._move(larger)
        self._base = measured

    def _try_less(self, measured: _Measured) -> None:
        smaller = max(self._low, self._limit * 3 // 4)
        if smaller == self._limit:
            self._rest = self._rests
            self._chosen = measured
            return
        self._move(smaller)
        self._base = measured

    def _end_trial(self, measured: _Measured) -> None:
        base = self._base
        assert base is not None
        gain, growth = measured.rate / base.rate, measured.limit / base.limit
        if growth > 1:
            # Where requests wait already, a larger window mostly takes from other streams: it has
            # to pay nearly in full, so that streams beside each other stop at equal shares.
            waits = self._queued(measured) > QUEUED
            pays = gain >= (growth**SHARE if waits else min(GAIN, math.sqrt(growth)))
        else:
            pays = measured.rate >= LOSS * max(base.rate, self._kept)
        if pays and growth > 1:
            self._rests = REST
            self._try_more(measured)
        elif pays:
            self._kept = max(base.rate, self._kept)
            self._try_less(measured)
        else:
            self._rest = self._rests
            self._rests = min(LONGEST_REST, self._rests * 2)
            self._fine = growth > 1 and not self._fine
            self._move(base.limit)
            self._chosen = base
            self._kept = 0.0


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
