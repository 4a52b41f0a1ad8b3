"""Both clients with faulty servers."""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from typing import Any, cast

import grpc
import numpy as np
import pytest

import featurewire
from featurewire import ChannelConfig, RetryConfig, StreamConfig
from featurewire._rpc.retry import wait_before_retry
from featurewire._tfs import types_pb2
from tests.client.misbehaving import (
    DIMENSION,
    Misbehaving,
    Sockets,
    cutting_proxy,
    eventually,
    http_server,
    image,
    muting_proxy,
    reply_to,
    silent_server,
    vector_of,
)
from tests.support.process import free_port

QUICK = RetryConfig(initial_backoff=0.01, max_backoff=0.05)
NEVER = RetryConfig(max_attempts=1)
QUEUE_FULL = (
    "The batch scheduling queue to which this task was submitted is full; max_enqueued_batches: 1"
)


def check_complete(results, count: int, version: int = 1) -> None:
    """Check that every image has one result, in order, with the right vector."""
    results = list(results)
    assert [result.key for result in results] == list(range(count))
    for number, result in enumerate(results):
        assert np.array_equal(result.unwrap().vector, vector_of(image(number), version))


def failing(times: int, code: grpc.StatusCode, text: str):
    """Abort the first `times` requests, answer the others."""
    counter = itertools.count()

    def predict(images, context):
        if next(counter) < times:
            context.abort(code, text)
        return reply_to(images)

    return predict


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Socket closed"),
        (grpc.StatusCode.UNAVAILABLE, QUEUE_FULL),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "out of capacity"),
        (grpc.StatusCode.ABORTED, "try again"),
    ],
)
def test_a_failure_that_passes_is_retried(connect, code, text):
    with Misbehaving(failing(2, code, text)) as server:
        client = connect(server.target, retry=QUICK)
        assert np.array_equal(client.embed(image(1)).vector, vector_of(image(1)))
        assert client.stats().retries == 2


@pytest.mark.parametrize(
    ("code", "text", "error"),
    [
        (grpc.StatusCode.INTERNAL, "a bug", featurewire.ServerError),
        (grpc.StatusCode.FAILED_PRECONDITION, "no", featurewire.InvalidRequestError),
        (grpc.StatusCode.UNAUTHENTICATED, "who?", featurewire.InvalidRequestError),
        (grpc.StatusCode.NOT_FOUND, "Servable not found", featurewire.ModelNotFoundError),
        (grpc.StatusCode.UNIMPLEMENTED, "?", featurewire.ServerError),
    ],
)
def test_a_failure_that_stays_is_not_retried(connect, code, text, error):
    with Misbehaving(failing(10**6, code, text)) as server:
        client = connect(server.target, retry=QUICK)
        with pytest.raises(error, match=text.replace("?", r"\?")) as caught:
            client.embed(image(1))
        assert len(server.requests) == 1
        assert isinstance(caught.value.__cause__, grpc.RpcError)
        assert caught.value.code == code.name


def test_attempts_are_bounded(connect):
    with Misbehaving(failing(10**6, grpc.StatusCode.UNAVAILABLE, QUEUE_FULL)) as server:
        client = connect(server.target, retry=RetryConfig(max_attempts=3, initial_backoff=0.01))
        with pytest.raises(featurewire.OverloadedError, match="queue") as caught:
            client.embed(image(1))
        assert len(server.requests) == 3
        assert caught.value.reason == "queue"


def pushing_back(times: int, milliseconds: str):
    """Reject the first `times` requests with gRPC's retry push-back, and answer the others."""
    counter = itertools.count()

    def predict(images, context):
        if next(counter) < times:
            context.set_trailing_metadata(
                (("grpc-retry-pushback-ms", milliseconds), ("featurewire-overload", "time"))
            )
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "cannot be answered in time")
        return reply_to(images)

    return predict


def test_a_push_back_is_waited_for(connect):
    with Misbehaving(pushing_back(1, "300")) as server:
        client = connect(server.target, retry=QUICK)
        client.embed(image(1))
        assert client.stats().retries == 1
    error = featurewire.OverloadedError("busy")
    error.retry_after = 0.3
    waits = [wait_before_retry(QUICK, 1, error) for _ in range(200)]
    assert 0.3 <= min(waits) < max(waits) <= 0.45  # without push-back it waits 0.01 s


@pytest.mark.parametrize("milliseconds", ["60000", "-1", "soon"])
def test_a_push_back_past_the_deadline_or_without_retry_ends_the_call(connect, milliseconds):
    with Misbehaving(pushing_back(9, milliseconds)) as server:
        client = connect(server.target, retry=QUICK, timeout=60)
        with pytest.raises(featurewire.OverloadedError) as caught:
            client.embed(image(1))
        assert caught.value.retry_after == (60.0 if milliseconds == "60000" else -1.0)
        assert caught.value.reason == "time"
        assert len(server.requests) == 1


def test_a_stream_waits_for_the_push_back(connect):
    with Misbehaving(pushing_back(2, "50")) as server:
        client = connect(server.target, retry=QUICK)
        client.status()
        check_complete(client.stream(map(image, range(40))), 40)


def test_streams_are_bulk_and_single_calls_are_not(connect):
    with Misbehaving() as server:
        client = connect(server.target)
        client.embed(image(1))
        client.embed_batch([image(1)] * 40)
        assert all("featurewire-class" not in sent for sent in server.call_metadata)
        before = len(server.call_metadata)
        check_complete(client.stream(map(image, range(40))), 40)
        assert {sent["featurewire-class"] for sent in server.call_metadata[before:]} == {"bulk"}
        channel = ChannelConfig(metadata={"featurewire-class": "interactive"})
        before = len(server.call_metadata)
        check_complete(connect(server.target, channel=channel).stream([image(0)]), 1)
        assert server.call_metadata[before]["featurewire-class"] == "interactive"


def test_the_retry_budget_is_shared_by_all_calls_of_a_client(connect):
    with Misbehaving(failing(10**6, grpc.StatusCode.UNAVAILABLE, QUEUE_FULL)) as server:
        retry = RetryConfig(max_attempts=5, initial_backoff=0.001, budget=6, budget_ratio=0.1)
        client = connect(server.target, retry=retry)
        for _ in range(10):
            with pytest.raises(featurewire.OverloadedError):
                client.embed(image(1))
        assert len(server.requests) == 10 + 6


def test_the_timeout_covers_all_attempts_together(connect, monkeypatch):
    # Waits of 0.2, 0.4 and 0.8 s: no attempt is left with a moment in which it would run out.
    monkeypatch.setattr(random, "uniform", lambda _, longest: longest)
    with Misbehaving(failing(10**6, grpc.StatusCode.UNAVAILABLE, QUEUE_FULL)) as server:
        retry = RetryConfig(max_attempts=10**6, initial_backoff=0.2, budget=10**6)
        client = connect(server.target, retry=retry)
        with pytest.raises(featurewire.OverloadedError, match=r"attempts? in"):
            client.embed(image(1), timeout=1.35)
        # A wait beyond the timeout was not started.
        assert 1 <= len(server.requests) <= 3


def test_a_slow_server_ends_in_a_deadline_error(connect):
    gate = threading.Event()

    def predict(images, _context):
        gate.wait(60)
        return reply_to(images)

    with Misbehaving(predict) as server:
        client = connect(server.target, timeout=0.3)
        with pytest.raises(featurewire.DeadlineExceededError, match="timeout") as caught:
            client.embed(image(1))
        assert isinstance(caught.value, TimeoutError)
        gate.set()


def test_nobody_listens(connect):
    client = connect(f"127.0.0.1:{free_port()}", retry=QUICK)
    with pytest.raises(featurewire.ServerUnavailableError, match="check the address"):
        client.embed(image(1))
    with pytest.raises(featurewire.ServerUnavailableError, match="check the address"):
        list(client.stream([image(1)]))
    with pytest.raises(featurewire.ServerUnavailableError, match="check the address"):
        client.wait_until_ready(0.5)


def test_a_web_server_answers(connect):
    with http_server() as server:
        client = connect(server.target, retry=NEVER, timeout=60)
        with pytest.raises(featurewire.ServerUnavailableError, match="8500"):
            client.embed(image(1))


@pytest.mark.parametrize(
    "greeting",
    [
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 501 Unsupported method\r\n\r\n<html>",
        b"220 mail.example ESMTP\r\n",
        b"-ERR unknown command 'PRI'\r\n",
        b"\x4a\x00\x00\x00\x0a8.0.36\x00\x0b\x00\x00\x00",
    ],
    ids=["SSH", "HTTP 1.1", "HTTP 1.0", "SMTP", "Redis", "MySQL"],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["speaks first", "answers"])
def test_a_port_of_something_else_is_recognised(connect, greeting, at_once):
    def greet(connection):
        if not at_once:
            connection.recv(4096)
        connection.sendall(greeting)
        while connection.recv(4096):
            pass

    with Sockets(greet) as server:
        client = connect(server.target, retry=NEVER, timeout=20)
        with pytest.raises(featurewire.ServerUnavailableError, match="does not speak gRPC"):
            client.embed(image(1))


def test_a_server_that_accepts_and_says_nothing_ends_in_time(connect):
    with silent_server() as server:
        client = connect(server.target, timeout=1.0, retry=QUICK)
        with pytest.raises((featurewire.DeadlineExceededError, featurewire.ServerUnavailableError)):
            client.embed(image(1))


def test_a_name_that_does_not_resolve(connect):
    client = connect("no-such-host.invalid:8500", retry=NEVER, timeout=60)
    with pytest.raises(featurewire.ServerUnavailableError, match=r"resol|DNS|address"):
        client.embed(image(1))


WRONG_REPLIES = {
    "too few rows": {"rows": 1},
    "too many rows": {"rows": 3},
    "a dtype that is not float32": {"dtype": types_pb2.DT_DOUBLE},
    "integers": {"dtype": types_pb2.DT_INT32},
    "another output": {"output": "logits"},
    "no status, though the signature has one": {"status": False},
    "one dimension": {"shape": [2 * DIMENSION]},
    "three dimensions": {"shape": [2, DIMENSION, 1]},
    "fewer values than the shape says": {"shape": [2, 2 * DIMENSION]},
}


@pytest.mark.parametrize("wrong", WRONG_REPLIES.values(), ids=WRONG_REPLIES.keys())
def test_a_wrong_reply_is_a_response_error(connect, wrong):
    with Misbehaving(lambda images, _context: reply_to(images, **wrong)) as server:
        client = connect(server.target)
        with pytest.raises(featurewire.ResponseError, match=server.target):
            client.embed_batch([image(1), image(2)])
        with pytest.raises(featurewire.ResponseError):
            list(client.stream([image(1), image(2)]))


def test_a_version_that_changes_its_dimension_is_a_response_error(connect):
    dimensions = iter([8, 8, 9])
    with Misbehaving(
        lambda images, _context: reply_to(images, dimension=next(dimensions)), dimension=-1
    ) as server:
        client = connect(server.target)
        client.embed(image(1))
        client.embed(image(2))
        with pytest.raises(featurewire.ResponseError, match="dimension 9, before that with 8"):
            client.embed(image(3))


def test_a_dimension_against_the_signature_is_a_response_error(connect):
    with Misbehaving(lambda images, _context: reply_to(images, dimension=5)) as server:
        client = connect(server.target)
        with pytest.raises(featurewire.ResponseError, match="dimension 5, its signature says 8"):
            client.embed(image(1))


def test_a_new_version_may_have_another_dimension(connect):
    with Misbehaving() as server:
        client = connect(server.target)
        client.embed(image(1))
        server.predict = lambda images, _context: reply_to(images, dimension=5, version=2)
        assert client.embed(image(1)).vector.shape == (5,)


def test_bytes_that_are_no_message_are_a_response_error(connect):
    with Misbehaving(lambda *_: cast(Any, b"\x0a\xff\xff\xff")) as server:
        client = connect(server.target)
        with pytest.raises(featurewire.ResponseError, match="not a PredictResponse"):
            client.embed(image(1))


def test_a_pinned_version_answered_by_another_is_a_response_error(connect):
    with Misbehaving(lambda images, _context: reply_to(images, version=2)) as server:
        client = connect(server.target, version=1)
        with pytest.raises(
            featurewire.ResponseError, match="version 2 answered a request for version 1"
        ):
            client.embed(image(1))


def test_a_huge_reply_is_read(connect):
    dimension = 3_000_000  # 12 MB, three times gRPC's default limit
    with Misbehaving(
        lambda images, _context: reply_to(images, dimension=dimension, content=True),
        dimension=dimension,
    ) as server:
        client = connect(server.target)
        assert client.embed(image(1)).vector.shape == (dimension,)


def test_a_reply_over_the_clients_own_limit_fails_for_that_image(connect):
    with Misbehaving(lambda images, _context: reply_to(images, dimension=100_000)) as server:
        channel = featurewire.ChannelConfig(max_message_bytes=1000)
        client = connect(server.target, channel=channel)
        with pytest.raises(featurewire.ImageError, match="larger than max") as caught:
            client.embed(image(1))
        assert caught.value.reason == "too_large"


def test_vectors_with_nan_never_reach_a_user(connect):
    def predict(images, _context):
        reply = reply_to(images, status=False)
        reply.outputs["features"].float_val[DIMENSION + 3] = float("nan")
        return reply

    with Misbehaving(predict, outputs=("features",)) as server:
        client = connect(server.target)
        batch = client.embed_batch([image(1), image(2), image(3)])
        assert {row: error.reason for row, error in batch.errors.items()} == {1: "not_finite"}
        results = list(client.stream([image(1), image(2), image(3)]))
        assert [result.error is None for result in results] == [True, False, True]


def test_an_unknown_status_is_an_image_error_with_its_number(connect):
    def predict(images, _context):
        reply = reply_to(images)
        reply.outputs["status"].int_val[0] = 77
        return reply

    with Misbehaving(predict) as server:
        with pytest.raises(featurewire.ImageError) as caught:
            connect(server.target).embed(image(1))
        assert caught.value.reason == "status 77"


def test_connections_cut_in_mid_reply_lose_and_repeat_nothing(connect):
    with (
        Misbehaving() as server,
        # The first six connections are cut inside a reply, each a little later than the previous
        # one.
        cutting_proxy(
            server.port, reply_bytes=lambda number: 900 * number if number <= 6 else None
        ) as proxy,
    ):
        client = connect(proxy.target, retry=QUICK, stream=StreamConfig(images_per_request=4))
        check_complete(client.stream(image(number) for number in range(600)), 600)
        assert proxy.accepted > 6


@pytest.mark.parametrize(
    "refusal",
    [
        (grpc.StatusCode.UNAVAILABLE, QUEUE_FULL),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted"),
    ],
    ids=["queue", "threads"],
)
def test_a_stream_backs_off_from_a_full_server_and_loses_nothing(connect, refusal):
    def most_held(seconds: float, first: int, **limits: Any) -> int:
        """Maximum number of concurrent calls, after the `first` calls were rejected.

        Calls wait until as many are in flight again, or for `seconds`.
        """
        changed, refused, held, opened = threading.Condition(), [0], [0], [False]

        def predict(images, context):
            with changed:
                if refused[0] < first:
                    refused[0] += 1
                    changed.notify_all()
                    changed.wait_for(lambda: refused[0] == first, timeout=60)
                    context.abort(*refusal)
                if not opened[0]:
                    held[0] += 1
                    changed.notify_all()
                    changed.wait_for(lambda: opened[0] or held[0] == first, timeout=seconds)
                    opened[0] = True
                    changed.notify_all()
            return reply_to(images)

        with Misbehaving(predict, threads=40) as server:
            config = StreamConfig(images_per_request=2, **limits)
            client = connect(server.target, retry=QUICK, stream=config)
            check_complete(client.stream(image(number) for number in range(400)), 400)
        return held[0]

    assert most_held(30, 16, in_flight=16) == 16
    assert most_held(0.5, 4) <= 2


def test_a_server_that_flaps_loses_and_repeats_nothing(connect):
    counter = itertools.count()

    def predict(images, context):
        if (next(counter) // 5) % 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")
        return reply_to(images)

    with Misbehaving(predict) as server:
        config = StreamConfig(images_per_request=4)
        client = connect(server.target, retry=QUICK, stream=config)
        check_complete(client.stream(image(number) for number in range(400)), 400)


def test_an_outage_is_probed_not_amplified(connect):
    down = threading.Event()

    def predict(images, context):
        if down.is_set():
            context.abort(grpc.StatusCode.UNAVAILABLE, "Connection refused")
        return reply_to(images)

    with Misbehaving(predict) as server:
        config = StreamConfig(images_per_request=1, in_flight=16)
        retry = RetryConfig(initial_backoff=0.1, max_backoff=0.2)
        client = connect(server.target, retry=retry, stream=config)
        results = client.stream(image(number) for number in range(500))
        first = [next(results) for _ in range(50)]
        down.set()
        before = len(server.requests)
        threading.Timer(1.0, down.clear).start()
        check_complete(itertools.chain(first, results), 500)
        refused = len(server.requests) - before - 450
        assert refused < 16 + 60  # the ones in flight, then one at a time


def test_patience_ends_a_stream_whose_server_stays_away(connect):
    down = threading.Event()

    def predict(images, context):
        if down.is_set():
            context.abort(grpc.StatusCode.UNAVAILABLE, "Connection refused")
        return reply_to(images)

    with Misbehaving(predict) as server:
        config = StreamConfig(images_per_request=1, patience=0.3)
        client = connect(server.target, retry=QUICK, stream=config)
        results = client.stream(image(number) for number in range(10**6))
        assert next(results).error is None
        down.set()
        with pytest.raises(featurewire.ServerUnavailableError):
            for _ in results:
                pass


def test_a_server_that_dies_before_its_first_reply_is_waited_for(connect):
    """The server has answered before, because the stream first asks for the signature's tensors."""
    away = threading.Event()

    def predict(images, context):
        if not away.is_set():
            away.set()
            back_at.append(time.monotonic() + 1.0)
        if time.monotonic() < back_at[0]:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Connection refused")
        return reply_to(images)

    back_at: list[float] = []
    with Misbehaving(predict) as server:
        # Five attempts without `patience` would end in a fifth of a second.
        client = connect(server.target, retry=QUICK, stream=StreamConfig(images_per_request=2))
        check_complete(client.stream(image(number) for number in range(20)), 20)


def test_a_stream_that_waits_for_the_connection_rides_out_an_outage(connect):
    with Misbehaving() as server:
        client = connect(
            server.target,
            timeout=0.3,
            retry=RetryConfig(max_attempts=2, initial_backoff=0.01, max_backoff=0.05),
            channel=ChannelConfig(wait_for_ready=True),
            stream=StreamConfig(images_per_request=2),
        )
        results = client.stream(image(number) for number in range(200))
        first = [next(results) for _ in range(20)]
        server.stop()
        again = Misbehaving(port=server.port)
        threading.Timer(1.0, again.start).start()
        check_complete(itertools.chain(first, results), 200)
        again.stop()


def test_a_look_at_a_result_is_neither_latency_nor_a_reason_to_hedge(connect):
    with Misbehaving() as server:
        client = connect(
            server.target,
            retry=RetryConfig(hedge_after=1.5),
            stream=StreamConfig(images_per_request=2),
        )
        for number, _ in enumerate(client.stream(image(number) for number in range(40))):
            if number == 8:
                time.sleep(1.7)
        stats = client.stats()
        assert stats.hedges == 0
        assert stats.latency["max"] < 1.5


def test_a_hedge_answers_when_the_first_request_hangs(connect):
    counter, gate = itertools.count(), threading.Event()

    def predict(images, _context):
        if next(counter) == 0:
            gate.wait(60)
        return reply_to(images)

    with Misbehaving(predict) as server:
        client = connect(server.target, retry=RetryConfig(hedge_after=0.1), timeout=60)
        assert np.array_equal(client.embed(image(5)).vector, vector_of(image(5)))
        stats = client.stats()
        assert (stats.hedges, stats.in_flight) == (1, 0)
        gate.set()


def test_hedges_repeat_no_result_of_a_stream(connect):
    def predict(images, _context):
        time.sleep(0.02)
        return reply_to(images)

    with Misbehaving(predict) as server:
        retry = RetryConfig(hedge_after=0.01, budget=1000)
        config = StreamConfig(images_per_request=5)
        client = connect(server.target, retry=retry, stream=config)
        check_complete(client.stream(image(number) for number in range(200)), 200)
        assert client.stats().hedges > 10


def test_with_two_servers_both_get_work_and_one_may_die(connect):
    with Misbehaving() as one, Misbehaving() as two:
        client = connect(
            f"{one.target},{two.target}", retry=QUICK, stream=StreamConfig(images_per_request=2)
        )
        results = client.stream(image(number) for number in range(600))
        first = [next(results) for _ in range(200)]
        assert one.requests
        assert two.requests
        one.stop()
        check_complete(itertools.chain(first, results), 600)
        served = len(one.requests)
        for number in range(20):
            client.embed(image(number))
        assert len(one.requests) == served


def test_addresses_of_one_target_share_the_work(connect):
    with Misbehaving() as one, Misbehaving() as two:
        client = connect(f"ipv4:{one.target},{two.target}")
        client.embed(image(1))
        with eventually() as until:  # both connections exist

            def both() -> bool:
                client.embed(image(2))
                return bool(one.requests and two.requests)

            until(both)
        before = len(one.requests), len(two.requests)
        for number in range(20):
            client.embed(image(number))
        assert (len(one.requests) - before[0], len(two.requests) - before[1]) == (10, 10)


def test_a_host_name_is_resolved(connect):
    with Misbehaving() as server:
        client = connect(f"dns:///localhost:{server.port}")
        assert np.array_equal(client.embed(image(1)).vector, vector_of(image(1)))


def test_a_server_that_was_away_gets_work_again(connect):
    with Misbehaving() as one, Misbehaving() as two:
        client = connect(f"{one.target},{two.target}", retry=QUICK)
        client.embed(image(1))
        client.embed(image(2))
        one.stop()
        for number in range(5):
            client.embed(image(number))
        again = Misbehaving(port=one.port)
        with again, eventually(20) as until:

            def answered() -> bool:
                client.embed(image(9))
                return bool(again.requests)

            until(answered)
            assert again.requests


def test_a_silent_host_is_given_up_after_the_keepalive_timeout(connect):
    muted = threading.Event()
    with Misbehaving() as dying, Misbehaving() as other, muting_proxy(dying.port, muted) as proxy:
        client = connect(
            f"{proxy.target},{other.target}",
            channel=ChannelConfig(keepalive_time=0.5, keepalive_timeout=0.5),
            stream=StreamConfig(images_per_request=2),
            retry=QUICK,
        )
        results = client.stream(image(number) for number in range(400))
        first = [next(results) for _ in range(100)]
        muted.set()
        check_complete(itertools.chain(first, results), 400)
        assert dying.requests


def test_one_of_several_servers_without_the_model_is_passed_over(connect):
    with (
        Misbehaving(failing(10**6, grpc.StatusCode.NOT_FOUND, "Servable not found")) as bare,
        Misbehaving() as other,
    ):
        client = connect(f"{bare.target},{other.target}", retry=QUICK)
        for number in range(4):
            assert np.array_equal(client.embed(image(number)).vector, vector_of(image(number)))
        check_complete(client.stream(image(number) for number in range(100)), 100)
        assert bare.requests


def test_an_address_that_never_answered_is_named_when_time_is_up(connect):
    with silent_server() as server:
        client = connect(server.target, timeout=0.5, retry=NEVER)
        with pytest.raises(featurewire.FeaturewireError, match="check the address"):
            client.embed(image(1))


def no_token():
    raise LookupError("no token today")


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (no_token, "no token today"),
        (lambda: None, "NoneType"),
        (lambda: b"t", "bytes"),
        (lambda: "", r"token=…\): the function's token is empty"),
        (lambda: "t\n", r"token=…\): the function's token contains '\\n'"),
        (lambda: "té", "contains 'é'"),
    ],
)
def test_a_token_that_cannot_be_had_is_an_error_of_ours(connect, token, words):
    with Misbehaving() as server:
        client = connect(server.target, channel=ChannelConfig(token=token))
        with pytest.raises(featurewire.ConfigError, match=words):
            client.embed(image(1))


def test_a_version_with_other_tensors_is_asked_for_them_again(connect):
    with Misbehaving() as server:
        client = connect(server.target)
        client.embed(image(1))
        server.outputs, server.input_name = ("embedding",), "data"

        def predict(images, context):
            if not images:
                context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    "output tensor alias not found in signature: features",
                )
            return reply_to(images, output="embedding", status=False)

        server.predict = predict
        with pytest.raises(featurewire.InvalidRequestError):
            client.embed(image(2))
        assert np.array_equal(client.embed(image(3)).vector, vector_of(image(3)))


def test_a_policy_that_grpc_does_not_know_is_a_config_error(connect):
    with Misbehaving() as server:
        client = connect(server.target, channel=ChannelConfig(load_balancing="round_robbin"))
        for call in (lambda: client.embed(image(1)), lambda: list(client.stream([image(1)]))):
            with pytest.raises(featurewire.ConfigError, match=r"robbin.*load_balancing=…"):
                call()


def test_an_error_carries_the_metadata_that_came_with_it(connect):
    def predict(_images, context):
        context.send_initial_metadata((("x-request-id", "7f3a"), ("via", "gateway")))
        context.set_trailing_metadata((("server-timing", "a;dur=3"), ("trace-bin", b"\0\1")))
        context.abort(grpc.StatusCode.INTERNAL, "a bug")

    with Misbehaving(predict) as server:
        client = connect(server.target)
        for call in (lambda: client.embed(image(1)), lambda: list(client.stream([image(1)]))):
            with pytest.raises(featurewire.ServerError, match=r"a bug.*x-request-id: 7f3a") as why:
                call()
            assert why.value.metadata["x-request-id"] == "7f3a"
            assert why.value.metadata["via"] == "gateway"
            assert why.value.metadata["server-timing"] == "a;dur=3"
            assert why.value.metadata["trace-bin"] == b"\0\1"
    assert featurewire.ConfigError("x").metadata == {}


def test_closing_the_client_ends_a_stream_with_an_error(connect):
    with Misbehaving() as server:
        client = connect(server.target, stream=StreamConfig(images_per_request=1))
        results = client.stream(image(number) for number in range(10**6))
        next(results)
        client.close()
        with pytest.raises(featurewire.ConfigError, match="closed"):
            for _ in results:
                pass


def test_a_server_that_hangs_is_rested(connect, caplog):
    hangs, gate = threading.Event(), threading.Event()

    def predict(images, _context):
        if hangs.is_set():
            gate.wait(60)
        return reply_to(images)

    with Misbehaving(predict) as one, Misbehaving() as two:
        client = connect(f"{one.target},{two.target}", timeout=0.5, retry=QUICK)
        for number in range(4):
            client.embed(image(number))
        caplog.set_level(logging.DEBUG, "featurewire")
        hangs.set()
        failed = 0
        for number in range(12):
            try:
                client.embed(image(number))
            except featurewire.DeadlineExceededError:
                failed += 1
        assert failed <= 1
        assert f"{one.target} is not used for" in caplog.text
        assert f"{two.target} is not used for" not in caplog.text
        hangs.clear()
        gate.set()
        with eventually(20) as until:  # the client retries it
            before = len(one.requests)

            def answered() -> bool:
                client.embed(image(1))
                return len(one.requests) > before

            until(answered)
