"""Decides how many requests a stream keeps in flight. Does no I/O."""

from __future__ import annotations

import math

from featurewire._config import StreamConfig

START_REQUESTS = 4
"""Initial number of requests in flight."""
WAITING_REQUESTS = 1.0
"""Number of requests that may wait at the server, so that it is never idle."""
WAITING_FRACTION = 0.1
"""This fraction of the requests in flight may wait in addition, because their times differ."""
CUT_FRACTION = 0.05
"""Fraction by which a window shrinks. Because it grows by one and shrinks by a fraction, concurrent
streams converge to equal windows: Chiu, Jain, "Analysis of the Increase and Decrease Algorithms",
Computer Networks and ISDN Systems 17(1), 1989."""
ROUNDS = 2
"""A window size is judged after this many replies per request in flight."""
MIN_REPLIES = 6
"""Minimum number of replies before a window size is judged."""
BATCH_FRACTION = 0.2
"""Replies count as one batch of the server if the time between them is below this fraction of the
average."""
BATCH_SECONDS = 0.0003
"""Replies also count as one batch if the time between them is below this."""
FRESH_SECONDS = 16.0
"""Time for which a measured minimum latency is valid."""
FRESH_LATENCIES = 60
"""It is also valid for this many latencies, if that is longer, because a measurement costs two."""
FRESH_FACTOR = 1.1
"""A latency within this factor of the minimum confirms the minimum."""
DRAINED_REPLIES = 2
"""Number of replies to single requests in one measurement of the minimum latency."""
QUEUE_SECONDS = 0.25
"""Rejections within this time come from the same full queue, so they halve the window once."""


class Window:
    """Keeps as many requests in flight as the server can work on, plus a few in its queue.

    The minimum latency is the time of the work itself; a request that takes longer has waited in
    the server's queue. So the latencies show which fraction of the requests in flight is waiting:
    Brakmo, Peterson, "TCP Vegas", IEEE JSAC 13(8), 1995. If few wait, the window grows by one; if
    many wait, it shrinks. A server that batches answers several requests at once, so the requests
    of one batch count as one.

    If the minimum latency was not confirmed for a while, the stream measures it again with single
    requests. This shortens the server's queue, so other streams see the minimum at the same time.
    Their minimum then also expires at the same time, so all streams drain the server together:
    Cardwell, Cheng, Gunn, Yeganeh, Jacobson, "BBR", ACM Queue 14(5), 2016, section 4.

    A full queue halves the window. If no server answers, the window is one request.
    """

    def __init__(self, config: StreamConfig) -> None:
        self._low = config.in_flight or 1
        self._high = config.in_flight or config.max_in_flight
        self._limit = min(self._high, max(self._low, START_REQUESTS))
        self._starting = True
        """Grow by half at a time, until requests wait for the first time."""
        self._least = math.inf
        """The minimum latency, in seconds."""
        self._confirmed_at = -math.inf
        self._drained = 0
        """Number of replies to single requests that the running measurement still needs."""
        self._probing = False
        self._halved_at = -math.inf
        self._last = -math.inf
        # Measured at the current window size:
        self._skip = self._replies = self._batches = 0
        self._latency = math.inf

    @property
    def limit(self) -> int:
        """Maximum number of requests in flight now."""
        if self._probing:
            return 1
        return self._low if self._drained else self._limit

    def replied(self, *, latency: float, now: float, saturated: bool) -> None:
        """Record a reply after `latency` seconds.

        `saturated`: the stream had more requests to send than the window allows.
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
        if self._skip:  # a reply to a request of the previous window size
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
        """Whether to measure the minimum latency again."""
        fresh = max(FRESH_SECONDS, FRESH_LATENCIES * self._least)
        return now - self._confirmed_at > fresh and self._limit > self._low

    def _judge(self) -> None:
        """Grow or shrink the window, as the replies at the current size suggest."""
        in_flight = self._limit * max(1, self._batches) / self._replies
        working = max(1.0, in_flight * self._least / max(self._latency, BATCH_SECONDS))
        if in_flight - working <= WAITING_REQUESTS + WAITING_FRACTION * in_flight:
            self._move(self._limit + (max(1, self._limit // 2) if self._starting else 1))
        else:
            self._starting = False
            self._move(min(self._limit - 1, round(self._limit * (1 - CUT_FRACTION))))

    def overloaded(self, now: float) -> None:
        """Halve the window, because the server's queue is full."""
        if now - self._halved_at >= QUEUE_SECONDS:
            self._halved_at = now
            self._starting = False
            self._move(self._limit // 2)

    def unreachable(self) -> None:
        """Send one request at a time, because no server answers."""
        self._probing = True

    def _move(self, limit: int, *, skip: int | None = None) -> None:
        """Change the window size. Replies to requests in flight do not count for the new size."""
        before, self._limit = self._limit, min(self._high, max(self._low, limit))
        self._skip = before if skip is None else skip
        self._replies = self._batches = 0
        self._latency = math.inf
