"""Decisions of the stream, step by step and without a server."""

from __future__ import annotations

import math

from featurewire import ChannelConfig, RetryConfig, StreamConfig
from featurewire._config import Settings
from featurewire._errors import (
    DeadlineExceededError,
    OverloadedError,
    ServerUnavailableError,
)
from featurewire._rpc.connection import Connection
from featurewire._stream.stream import Stream
from featurewire._wire.predict import Codec, Names, model_spec
from tests.client.misbehaving import image, reply_to

NAMES = Names(signature="serving_default", input="image_bytes", output="features", status="status")


def stream_of(count: int, **config):
    """A stream with one image per request and `count` images, at time 0."""
    retry = RetryConfig(initial_backoff=1.0, max_backoff=4.0)
    connection = Connection(
        Settings(
            target="127.0.0.1:1",
            model="tiny",
            retry=retry,
            channel=ChannelConfig(),
            stream=StreamConfig(),
        )
    )
    codec = Codec(model_spec("tiny"), NAMES)
    stream = Stream(connection, codec, StreamConfig(images_per_request=1, **config), timeout=60)
    for number in range(count):
        stream.fill(stream.open(number), image(number), 0.0)
    return stream


def answer(stream, attempt, now: float, number: int) -> None:
    stream.replied(attempt, reply_to([image(number)]).SerializeToString(), now)


def stream_that_was_answered():
    """A stream of two images, one request at a time, after the first result."""
    stream = stream_of(2, in_flight=1)
    [attempt] = stream.due(0.5)
    answer(stream, attempt, 0.9, 0)
    assert [result.key for result in stream.take()] == [0]
    return stream


def test_in_an_outage_one_request_at_a_time_is_sent_and_nothing_spins():
    stream = stream_of(8)
    first = stream.due(1.0)
    assert len(first) == 4
    answer(stream, first[0], 2.0, 0)
    flying = [*first[1:], *stream.due(2.0)]
    for attempt in flying:
        stream.failed(attempt, ServerUnavailableError("gone"), 3.0)
    probe_at = stream.wake_at()
    assert 3.0 <= probe_at <= 3.0 + 1.0
    probes = stream.due(probe_at)
    assert len(probes) == 1
    assert stream.wake_at() == math.inf  # it waits for the probe's outcome
    assert stream.due(probe_at + 100) == []
    stream.failed(probes[0], ServerUnavailableError("still gone"), 110.0)
    assert stream.wake_at() >= 110.0
    [probe] = stream.due(stream.wake_at())
    answer(stream, probe, 120.0, 1)
    assert len(stream.due(120.0)) > 1  # the server is back, so send all, up to the window


def test_a_retry_that_waits_for_its_turn_wakes_nobody():
    stream = stream_of(6, max_in_flight=2)
    one, two = stream.due(0.5)
    answer(stream, one, 1.0, 0)
    [three] = stream.due(1.0)
    stream.failed(two, OverloadedError("full"), 2.0)  # this reduces the window to one request
    assert three.call.in_flight
    assert stream.wake_at() == math.inf
    assert stream.due(100.0) == []
    answer(stream, three, 101.0, 2)
    assert len(stream.due(101.0)) == 1


def test_results_wait_for_those_before_them():
    stream = stream_of(3)
    attempts = stream.due(0.5)
    answer(stream, attempts[2], 1.0, 2)
    answer(stream, attempts[1], 1.1, 1)
    assert stream.take() == []
    answer(stream, attempts[0], 1.2, 0)
    assert [result.key for result in stream.take()] == [0, 1, 2]


def test_an_outcome_that_comes_twice_counts_once():
    stream = stream_of(2)
    attempts = stream.due(0.5)
    answer(stream, attempts[0], 1.0, 0)
    answer(stream, attempts[0], 1.1, 0)
    stream.failed(attempts[0], ServerUnavailableError("late"), 1.2)
    answer(stream, attempts[1], 1.3, 1)
    stream.end()
    assert [result.key for result in stream.take()] == [0, 1]
    assert stream.finished


def test_deadlines_in_an_outage_do_not_use_up_the_attempts():
    stream = stream_that_was_answered()
    now = 1.0
    for _ in range(20):
        [attempt] = stream.due(now)
        stream.failed(attempt, ServerUnavailableError("gone"), now)
        now = stream.wake_at() + 0.001
    for _ in range(20):  # the server is back, and warming up
        [attempt] = stream.due(now)
        stream.failed(attempt, DeadlineExceededError("slow"), now)
        now = stream.wake_at() + 0.001
    [attempt] = stream.due(now)
    answer(stream, attempt, now, 1)
    assert stream.take()[0].unwrap().version == 1


def test_deadlines_of_a_server_that_is_there_are_counted():
    stream = stream_that_was_answered()
    now, attempts = 1.0, 0
    while not stream.finished:
        [attempt] = stream.due(now)
        attempts += 1
        stream.failed(attempt, DeadlineExceededError("slow"), now)
        now = min(stream.wake_at(), now + 10) + 0.001
    assert attempts == RetryConfig().max_attempts


def test_patience_counts_from_the_first_failure_since_the_last_reply():
    stream = stream_of(3, in_flight=1, patience=10)
    [attempt] = stream.due(0.0)
    answer(stream, attempt, 1.0, 0)
    now = 2.0
    [attempt] = stream.due(now)
    while not stream.finished:
        assert now < 30
        stream.failed(attempt, ServerUnavailableError("gone"), now)
        if stream.finished:
            break
        now = max(now + 0.1, stream.wake_at())
        [attempt] = stream.due(now)
    assert 12.0 <= now <= 12.0 + 4.0 + 0.1
    assert isinstance(stream.error, ServerUnavailableError)
