"""The window of a stream, in a simulation of servers and their streams."""

import heapq
import itertools
import random
from typing import Any

import pytest

from featurewire import StreamConfig
from featurewire._stream.window import Window


class Fixed:
    def __init__(self, limit):
        self.limit = limit

    def replied(self, **_):
        pass


class Server:
    """A simulated server. Each of `workers` merges up to `merge` requests, and takes `base` +
    `each` seconds per request.

    Requests are served in order, and rejected if `queue` others are waiting. A client's next
    request arrives `gap` seconds after a reply, and the replies of a batch `spread` seconds after
    one another. Time is simulated.
    """

    def __init__(
        self,
        *,
        workers=1,
        merge=1,
        base=0.0,
        each=0.1,
        gap=0.005,
        jitter=0.05,
        queue=999,
        spread=1e-4,
    ):
        self.workers, self.merge, self.base, self.each = workers, merge, base, each
        self.gap, self.jitter, self.queue, self.spread = gap, jitter, queue, spread

    def run(self, windows, *, seconds, starts=(0, 30, 60), at=None):
        """Images per second of each stream, and all requests in flight, in the second half.

        `at`: a time, and a function to call at that time with the server.
        """
        random_, number = random.Random(1), itertools.count()
        events: list[Any] = []
        waiting: list[Any] = []
        busy = 0
        flying, answered, area, before = [0] * len(windows), [0] * len(windows), 0.0, seconds / 2

        def later(when, what, *about):
            heapq.heappush(events, (when, next(number), what, about))

        def send(stream, now):
            while flying[stream] < windows[stream].limit:
                flying[stream] += 1
                later(now + self.gap * random_.uniform(0.5, 1.5), "arrives", stream, now)

        for stream, start in zip(range(len(windows)), starts, strict=False):
            later(start, "begins", stream)
        if at is not None:
            later(at[0], "changes")
        while events and events[0][0] < seconds:
            now, _, what, about = heapq.heappop(events)
            if now > seconds / 2:
                area, before = area + sum(flying) * (now - before), now
            if what == "begins":
                send(about[0], now)
            elif what == "changes":
                at[1](self)
            elif what == "arrives" and len(waiting) >= self.queue:
                windows[about[0]].overloaded(now)
                later(now + 0.1, "arrives", *about)
            elif what == "arrives":
                waiting.append(about)
            else:
                busy -= 1
                for place, (stream, sent) in enumerate(about):
                    flying[stream] -= 1
                    answered[stream] += now > seconds / 2
                    reply = now + place * self.spread
                    windows[stream].replied(latency=reply - sent, now=reply, saturated=True)
                    send(stream, reply)
            while waiting and busy < self.workers:
                batch, waiting = waiting[: self.merge], waiting[self.merge :]
                busy += 1
                takes = self.base + self.each * len(batch)
                later(
                    now + takes * random_.uniform(1 - self.jitter, 1 + self.jitter), "ends", *batch
                )
        return [16 * count / (seconds / 2) for count in answered], area / (seconds / 2)


PHASES = [0, 3, 7, 11]
"""Seconds by which later streams begin later, because results must not depend on when they do."""


def own(count, **config):
    return [Window(StreamConfig(**config)) for _ in range(count)]


def best(server, streams, seconds):
    """The best rate of a fixed number in flight, and the smallest number within 3 % of it."""
    found = [
        server.run([Fixed(limit) for _ in range(streams)], seconds=seconds)
        for limit in (1, 2, 3, 4, 6, 8, 12, 24, 32)
    ]
    rate = max(sum(rates) for rates, _ in found)
    return rate, min(flying for rates, flying in found if sum(rates) >= 0.97 * rate)


SLOW_SERVERS = {"twenty workers", "twenty workers, requests of all sizes", "merges sixteen"}
"""Servers whose simulation takes seconds of CPU time."""
SERVERS: dict[str, tuple[dict[str, Any], int]] = {
    "one worker": ({}, 240),
    "one worker, a long way": ({"gap": 0.02}, 240),
    "one worker, requests of all sizes": ({"jitter": 0.4}, 480),
    "two workers": ({"workers": 2}, 240),
    "four workers": ({"workers": 4}, 240),
    "twenty workers": ({"workers": 20, "gap": 0.01}, 180),
    "twenty workers, requests of all sizes": ({"workers": 20, "gap": 0.01, "jitter": 0.4}, 180),
    "merges two, no gain": ({"merge": 2, "base": 0.01}, 240),
    "merges four, a third faster": ({"merge": 4, "base": 0.033, "each": 0.066}, 360),
    "merges four, replies apart": (
        {"merge": 4, "base": 0.033, "each": 0.066, "spread": 0.004},
        360,
    ),
    "merges sixteen": ({"merge": 16, "base": 0.02, "each": 0.01}, 240),
}


def of_server(name, *about):
    """A case about a server, slow if its simulation is."""
    return pytest.param(name, *about, marks=[pytest.mark.slow] * (name in SLOW_SERVERS))


@pytest.mark.parametrize("name", [of_server(name) for name in SERVERS])
def test_a_lone_stream_is_as_fast_as_the_best_fixed_window(name):
    settings, seconds = SERVERS[name]
    rate, fewest = best(Server(**settings), 1, seconds)
    (found,), flying = Server(**settings).run(own(1), seconds=seconds)
    assert found >= 0.97 * rate
    assert flying <= 1.25 * fewest + 1.25


@pytest.mark.parametrize(("streams", "alike", "spare"), [(2, 1.5, 3), (3, 2.0, 5)])
@pytest.mark.parametrize(
    "name",
    [
        of_server("one worker"),
        of_server("two workers"),
        of_server("twenty workers"),
        of_server("merges two, no gain"),
        of_server("merges four, a third faster"),
        of_server("merges four, replies apart"),
        of_server("merges sixteen"),
    ],
)
def test_streams_on_one_server_get_similar_shares(name, streams, alike, spare):
    settings, seconds = SERVERS[name]
    if name == "merges sixteen":
        # All requests in flight form one batch, so a stream cannot notice whose requests they are.
        alike = 2.0
    rate, fewest = best(Server(**settings), streams, 2 * seconds)
    for phase in PHASES:
        starts = (0, 30 + phase / 2, 60 + phase)
        rates, flying = Server(**settings).run(own(streams), seconds=2 * seconds, starts=starts)
        assert sum(rates) >= 0.97 * rate, phase
        assert max(rates) <= alike * min(rates), phase
        assert flying <= 1.5 * fewest + spare * streams, phase


def test_the_window_leaves_what_a_full_queue_refuses():
    server = Server(workers=4, queue=2)
    (rate,), flying = server.run(own(1), seconds=120)
    assert flying < 7
    assert rate >= 0.9 * 4 * 16 / 0.1


@pytest.mark.parametrize("at", [50, pytest.param(57, marks=pytest.mark.slow)])
def test_the_window_follows_a_server_that_grows(at):
    def grow(server):
        server.workers = 24

    server = Server(workers=3)
    (rate,), _ = server.run(own(1), seconds=400, at=(at, grow))
    assert rate >= 0.9 * 24 * 16 / 0.105


@pytest.mark.parametrize("phase", [0, pytest.param(7, marks=pytest.mark.slow)])
def test_the_window_goes_back_when_others_have_come(phase):
    server, windows = Server(workers=20), own(2)
    server.run(windows, seconds=60, starts=(0, 61))
    alone = windows[0].limit
    server.run(windows, seconds=240, starts=(0, phase))
    assert windows[0].limit < 0.8 * alone


def test_a_slow_source_teaches_the_window_nothing():
    window = Window(StreamConfig())
    start = window.limit
    for second in range(1000):
        window.replied(latency=0.1, now=float(second), saturated=False)
        assert window.limit == start > 1


def test_an_outage_shrinks_the_window_to_one_until_a_server_answers():
    window = Window(StreamConfig())
    start = window.limit
    window.unreachable()
    assert window.limit == 1
    window.replied(latency=0.1, now=1.0, saturated=True)
    assert window.limit == start // 2


def test_a_fixed_window_is_fixed():
    windows = own(1, in_flight=6)
    Server(workers=20, queue=4).run(windows, seconds=10)
    assert windows[0].limit == 6
