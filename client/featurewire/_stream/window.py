"""How many requests a stream keeps in flight. Decides; fed with what happened."""

from __future__ import annotations

import math
import time

from featurewire._config import StreamConfig

__all__ = ["Window"]

WAITING = 1.5
"""Requests that may wait at the server: with one there the server never waits for us. Of replies
that come in bunches, those of one bunch count as one, and by `MERGED` fewer may wait."""
MERGED = 0.5
RANDOM = 1 / 12
"""The share of those in flight that may wait besides: not all requests take the same time."""
CUT = 0.05
"""What a window gives up at a time, one request at least. Shares come together because it is a
share of what there is and a step up is not: Chiu, Jain, "Analysis of the Increase and Decrease
Algorithms", Computer Networks and ISDN Systems 17(1), 1989."""
ROUNDS = 2
"""A window's replies are judged after so many rounds of them,"""
FEWEST = 6
"""and after so many replies at least."""
TOGETHER = 0.06
"""Replies closer than this share of their usual distance come from one batch of the server."""
AT_ONCE = 0.0003
"""So do those closer than these seconds."""
REFRESH = 16.0
"""Seconds between two looks at the least latency, or twice, four times … as many:"""
LATENCIES = 40
"""so that at least so many latencies lie between."""
CONFIRMED = 1.1
"""A latency within this of the least that is known ends a look,"""
RISEN = 1
"""or so many in a row that are above one before: the others have drained too."""
ONE_QUEUE = 0.25
"""Seconds in which refusals come from the same full queue."""


class Window:
    """How many requests a stream keeps in flight: as many as the server works on and one more.

    What a request takes above the least latency, it waited; so a share of those in flight waits:
    Brakmo, Peterson, "TCP Vegas", IEEE JSAC 13(8), 1995. A server that merges requests takes
    longer for more of them without letting any wait, and its replies come in bunches: of what it
    works on, a bunch is always in flight, and a whole bunch may wait.

    The least latency cannot be seen beside others who keep requests waiting. So at the same time,
    by the clock, all streams let the server drain and send single requests: Cardwell, Cheng, Gunn,
    Yeganeh, Jacobson, "BBR", ACM Queue 14(5), 2016, section 4.

    A full queue halves the window; an outage shrinks it to a probe of one request until somebody
    answers.
    """

    def __init__(self, config: StreamConfig, *, clock: float | None = None) -> None:
        """`clock`: what makes the time of day of `now`; None: the machine's."""
        self._low = config.min_in_flight
        self._high = config.max_in_flight
        self._limit = min(self._high, max(self._low, config.initial_in_flight))
        self._starting = True
        """It grows by halves, until requests wait for the first time."""
        self._least = math.inf
        """Seconds that a request takes which waits for nothing."""
        self._clock = time.time() - time.monotonic() if clock is None else clock
        self._turn = math.inf
        """The number of the last turn to look."""
        self._looked = False
        """The least comes from a look; until then the next turn is near."""
        self._looks: list[float] | None = None
        """The latencies of a look at the least; None while there is none."""
        self._probing = False
        self._halved_at = -math.inf
        self._last = -math.inf
        self._replies = self._bunches = self._skip = 0
        self._latency = math.inf

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        if self._probing:
            return 1
        return self._limit if self._looks is None else self._low

    def replied(self, *, latency: float, now: float, saturated: bool) -> None:
        """A request was answered after `latency` seconds.

        `saturated`: the stream had more to send than the window let it.
        """
        if self._probing:
            self._probing, self._looks = False, None
            self._move(self._limit // 2)
            return
        apart = now - self._last > max(AT_ONCE, TOGETHER * latency / self._limit)
        self._last = now
        if self._skip:  # sent under the size before
            self._skip -= 1
            return
        if self._looks is not None:
            self._look(latency)
            return
        self._least = min(self._least, latency)
        if not saturated:
            self._move(self._limit, skip=0)
            return
        if self._is_turn(now):
            self._looks, self._skip = [], self._limit - 1
            return
        self._replies += 1
        self._bunches += apart
        self._latency = min(self._latency, latency)
        if self._replies >= max(FEWEST, ROUNDS * self._limit):
            self._judge()

    def _judge(self) -> None:
        bunch = self._replies / max(1, self._bunches)
        flying = self._limit / bunch
        waiting = flying - max(1.0, flying * self._least / max(self._latency, AT_ONCE))
        if waiting <= WAITING - MERGED * (1 - 1 / bunch) + RANDOM * flying:
            self._move(self._limit + (max(1, self._limit // 2) if self._starting else 1))
        else:
            self._starting = False
            self._move(min(self._limit - 1, round(self._limit * (1 - CUT))))

    def _is_turn(self, now: float) -> bool:
        """It is time for a look at the least latency."""
        every = REFRESH
        while self._looked and every < LATENCIES * self._least:
            every *= 2
        turn = (now + self._clock) // every
        due, self._turn = turn > self._turn, turn
        return due and self._low < self._high and self._limit > 1

    def _look(self, latency: float) -> None:
        assert self._looks is not None
        self._looks.append(latency)
        least = min(self._looks)
        if latency <= CONFIRMED * self._least:
            least = min(self._least, latency)
        elif len(self._looks) - self._looks.index(least) <= RISEN:
            return
        self._least, self._looks, self._looked = least, None, True
        self._move(self._limit)

    def overloaded(self, now: float) -> None:
        """The server's queue is full."""
        if now - self._halved_at < ONE_QUEUE:
            return
        self._halved_at = now
        self._starting = False
        self._move(self._limit // 2)

    def unreachable(self) -> None:
        """Nobody answers: probe with one request at a time."""
        self._probing = True

    def _move(self, limit: int, *, skip: int | None = None) -> None:
        """Another size, for which replies to what is in flight say nothing."""
        before, self._limit = self._limit, min(self._high, max(self._low, limit))
        self._skip = before if skip is None else skip
        self._replies = self._bunches = 0
        self._latency = math.inf
