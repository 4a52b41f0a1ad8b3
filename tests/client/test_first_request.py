"""A stream retries its first request and its metadata request, as docs/client.md says."""

from __future__ import annotations

import itertools
import threading

import grpc
import numpy as np
import pytest

import featurewire
from featurewire import RetryConfig, StreamConfig
from tests.client.misbehaving import Misbehaving, image, reply_to, vector_of
from tests.support.waiting import wait_until


class Paused(Misbehaving):
    """Does not answer the first calls of a kind.

    It rejects them at once, like TensorFlow Serving after a deadline. With `held` it does not
    answer at all until the caller has gone or the server is released.
    """

    def __init__(
        self,
        *,
        predicts: int = 0,
        questions: int = 0,
        code: str = "DEADLINE_EXCEEDED",
        held: bool = False,
    ) -> None:
        super().__init__(self._predict)
        self._predicts, self._questions = itertools.count(-predicts), itertools.count(-questions)
        self._code, self._held = code, held
        self._released = threading.Event()
        self.time_remaining: list[float] = []
        """Remaining time of each Predict request in seconds."""

    def release(self) -> None:
        self._released.set()

    def _leave_unanswered(self, context: grpc.ServicerContext) -> None:
        if not self._held:
            context.abort(grpc.StatusCode[self._code], "no answer")
        if context.add_callback(self.release):
            self._released.wait(60)
            self._released.clear()

    def _predict(self, images, context):
        self.time_remaining.append(context.time_remaining())
        if next(self._predicts) < 0:
            self._leave_unanswered(context)
        return reply_to(images)

    def on_metadata(self, data, context):
        if next(self._questions) < 0:
            self._leave_unanswered(context)
        return super().on_metadata(data, context)


def check_complete(results, count: int) -> None:
    results = list(results)
    assert [result.key for result in results] == list(range(count))
    for number, result in enumerate(results):
        assert np.array_equal(result.unwrap().vector, vector_of(image(number)))


@pytest.mark.parametrize("warm", [False, True], ids=["a new client", "a client that was answered"])
def test_a_first_request_without_reply_is_sent_again(connect, warm):
    with Paused(predicts=3) as server:
        client = connect(server.target)
        if warm:
            client.status()
        check_complete(client.stream(map(image, range(100))), 100)


def test_a_server_that_says_nothing_is_asked_again(connect):
    with Paused(predicts=1, questions=1, held=True) as server:
        check_complete(connect(server.target).stream(map(image, range(10)), timeout=1), 10)


def test_a_first_question_without_reply_is_asked_again(connect):
    with Paused(questions=2) as server:
        check_complete(connect(server.target).stream(map(image, range(40))), 40)


def test_a_pinned_streams_question_is_asked_again(connect):
    with Paused(questions=2) as server:
        client = connect(server.target, stream=StreamConfig(pin_version=True))
        check_complete(client.stream(map(image, range(40))), 40)


def test_a_first_question_waits_for_a_server_that_is_gone(connect):
    retry = RetryConfig(max_attempts=2, initial_backoff=0.01, max_backoff=0.02)
    with Paused(questions=9, code="UNAVAILABLE") as server:
        client = connect(server.target, retry=retry)
        client.status()  # after the first answer, `patience` applies
        check_complete(client.stream(map(image, range(40))), 40)


def test_a_question_to_a_server_never_seen_has_few_retries(connect):
    retry = RetryConfig(max_attempts=2, initial_backoff=0.01, max_backoff=0.02)
    with Paused(questions=10**6, code="UNAVAILABLE") as server:
        client = connect(server.target, retry=retry)
        with pytest.raises(featurewire.ServerUnavailableError, match="2 attempts"):
            list(client.stream([image(1)]))


@pytest.mark.parametrize("attempts", [1, 3])
def test_attempts_without_reply_are_bounded(connect, attempts):
    with Paused(predicts=10**6) as server:
        client = connect(server.target, retry=RetryConfig(max_attempts=attempts))
        with pytest.raises(featurewire.DeadlineExceededError):
            list(client.stream([image(1)]))
        assert len(server.requests) == attempts
        server.requests.clear()
        client.status()
        with pytest.raises(featurewire.DeadlineExceededError):
            list(client.stream([image(1)]))
        assert len(server.requests) == attempts


def test_patience_ends_attempts_without_reply(connect):
    with Paused(predicts=10**6, held=True) as server:
        client = connect(
            server.target,
            retry=RetryConfig(max_attempts=1000),
            stream=StreamConfig(patience=0.5),
        )
        with pytest.raises(featurewire.DeadlineExceededError, match="attempts in"):
            list(client.stream([image(1)], timeout=0.2))
        assert len(server.requests) < 10


def test_a_call_outside_a_stream_keeps_its_whole_timeout(connect):
    with Paused(predicts=1) as server:
        with pytest.raises(featurewire.DeadlineExceededError):
            connect(server.target).embed(image(1), timeout=1000)
        (remaining,) = server.time_remaining
        assert remaining > 900


def test_waiting_for_anothers_question_ends_with_the_timeout():
    with (
        Paused(questions=1, held=True) as server,
        featurewire.Client(server.target, model="tiny") as client,
    ):
        asked = threading.Thread(target=client.embed, args=[image(1)])
        asked.start()
        wait_until(lambda: client.stats().requests)
        with pytest.raises(featurewire.DeadlineExceededError, match="another call"):
            client.embed(image(2), timeout=0.2)
        assert asked.is_alive()
        server.release()
        asked.join(60)
        assert np.array_equal(client.embed(image(3)).vector, vector_of(image(3)))
