"""How many requests a stream keeps in flight. Decides; fed with what happened."""

from __future__ import annotations

import math

from featurewire._config import StreamConfig

__all__ = ["Window"]

START = 4
"""Requests in flight at first."""
WAITING_REQUESTS = 1.0
"""Requests that may wait at the server, so that it never waits for us,"""
WAITING_FRACTION = 0.1
"""and in addition this share of those in flight, because they do not all take the same time."""
CUT_FRACTION = 0.05
"""How much a window shrinks at a time. Shares come together because it shrinks by a share of what
there is and grows by one: Chiu, Jain, "Analysis of the Increase and Decrease Algorithms", Computer
Networks and ISDN Systems 17(1), 1989."""
ROUNDS = 2
"""A size is judged after this many rounds of replies,"""
MIN_REPLIES = 6
"""and after at least this many replies."""
BATCH_FRACTION = 0.2
"""Replies closer than this share of their usual distance come from one batch of the server,"""
BATCH_SECONDS = 0.0003
"""and so do replies closer than this."""
FRESH_SECONDS = 16.0
"""How long the least latency is believed,"""
FRESH_LATENCIES = 60
"""or as long as this many requests take, if that is longer: measuring it costs about two."""
FRESH_FACTOR = 1.1
"""A latency within this factor of the least one confirms it."""
DRAINED_REPLIES = 2
"""Replies of single requests that tell the least latency."""
QUEUE_SECONDS = 0.25
"""Refusals within this time come from the same full queue."""


class Window:
    """As many requests as the server works on, and a few more that wait there for their turn.

    The least latency that was seen is the time for the work, and what a request takes above it, it
    waits; so the same share of the requests in flight waits: Brakmo, Peterson, "TCP Vegas", IEEE
    JSAC 13(8), 1995. Where few wait, the window grows by one; where many do, it shrinks. A server
    that merges requests answers them together, so those of one batch count as one.

    A least latency that was not confirmed for a while is measured again: the stream sends single
    requests for a moment. Other streams see the shorter queue, which confirms their least latency
    at the same moment. So it ages for all streams together, all of them drain the server together,
    and see it without a queue: Cardwell, Cheng, Gunn, Yeganeh, Jacobson, "BBR", ACM Queue 14(5),
    2016, section 4.

    A full queue halves the window. An outage shrinks it to one request until a server answers.
    """

    def __init__(self, config: StreamConfig) -> None:
        self._low = config.in_flight or 1
        self._high = config.in_flight or config.max_in_flight
        self._limit = min(self._high, max(self._low, START))
        self._starting = True
        """It grows by halves, until requests wait for the first time."""
        self._least = math.inf
        """Seconds that a request takes which waits for nothing."""
        self._confirmed_at = -math.inf
        self._drained = 0
        """Replies of single requests that are still to come."""
        self._probing = False
        self._halved_at = -math.inf
        self._last = -math.inf
        # Measured at the present size:
        self._skip = self._replies = self._batches = 0
        self._latency = math.inf

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        if self._probing:
            return 1
        return self._low if self._drained else self._limit

    def replied(self, *, latency: float, now: float, saturated: bool) -> None:
        """A request was answered after `latency` seconds.

        `saturated`: the stream had more to send than the window let it.
        """
        if self._probing:
            self._probing, self._drained = False, 0
            self._move(self._limit // 2)
            return
        apart = now - self._last > max(BATCH_SECONDS, BATCH_FRACTION * latency / self._limit)
        self._last = now
        if latency <= FRESH_FACTOR * self._least:
            self._confirmed_at = now
        self._least = min(self._least, latency)
        if self._skip:  # sent under the size before
            self._skip -= 1
        elif not saturated:
            self._move(self._limit, skip=0)
        elif self._drained:
            self._drained -= 1
            if not self._drained:
                self._move(self._limit, skip=0)
        elif self._is_stale(now):
            self._least, self._drained, self._skip = math.inf, DRAINED_REPLIES, self._limit - 1
        else:
            self._replies += 1
            self._batches += apart
            self._latency = min(self._latency, latency)
            if self._replies >= max(MIN_REPLIES, ROUNDS * self._limit):
                self._judge()

    def _is_stale(self, now: float) -> bool:
        """Whether to measure the least latency again."""
        fresh = max(FRESH_SECONDS, FRESH_LATENCIES * self._least)
        return now - self._confirmed_at > fresh and self._limit > self._low

    def _judge(self) -> None:
        """Grow or shrink by what the replies to the present size say."""
        flying = self._limit * max(1, self._batches) / self._replies
        working = max(1.0, flying * self._least / max(self._latency, BATCH_SECONDS))
        if flying - working <= WAITING_REQUESTS + WAITING_FRACTION * flying:
            self._move(self._limit + (max(1, self._limit // 2) if self._starting else 1))
        else:
            self._starting = False
            self._move(min(self._limit - 1, round(self._limit * (1 - CUT_FRACTION))))

    def overloaded(self, now: float) -> None:
        """The server's queue is full."""
        if now - self._halved_at >= QUEUE_SECONDS:
            self._halved_at = now
            self._starting = False
            self._move(self._limit // 2)

    def unreachable(self) -> None:
        """No server answers: probe with one request at a time."""
        self._probing = True

    def _move(self, limit: int, *, skip: int | None = None) -> None:
        """Take another size. Replies to what is in flight say nothing about it."""
        before, self._limit = self._limit, min(self._high, max(self._low, limit))
        self._skip = before if skip is None else skip
        self._replies = self._batches = 0
        self._latency = math.inf
