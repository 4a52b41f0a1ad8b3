"""Sources that wait, are slow, or never return."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import numpy as np
import pytest

import featurewire
from featurewire import ChannelConfig, RetryConfig, StreamConfig
from featurewire._config import Settings
from featurewire._rpc.connection import Connection
from featurewire._stream.stream import Stream
from featurewire._wire.predict import Codec, Names, model_spec
from tests.client.misbehaving import MODEL, Misbehaving, image, reply_to, vector_of


@pytest.fixture
def server():
    with Misbehaving() as server:
        yield server


@pytest.mark.parametrize("per_request", [1, 16])
def test_a_source_may_wait_for_the_results_before_it(connect, server, per_request):
    answered = threading.Semaphore(1)

    def source():
        for number in range(5):
            assert answered.acquire(timeout=60)
            yield image(number)

    config = StreamConfig(images_per_request=per_request, linger=0.02)
    for result in connect(server.target, stream=config).stream(source()):
        assert np.array_equal(result.unwrap().vector, vector_of(image(result.key)))
        answered.release()


def test_eight_readers_read_side_by_side_bounded_and_in_order(connect, server):
    lock, now, most, taken = threading.Lock(), [0], [0], [0]
    together = threading.Barrier(8, timeout=60)

    def get(number):
        def read():
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            together.wait()
            with lock:
                now[0] -= 1
            return image(number)

        return read

    def source():
        for number in range(80):
            taken[0] += 1
            yield number, get(number)

    config = StreamConfig(readers=8, images_per_request=4)
    results = list(connect(server.target, stream=config).stream(source()))
    assert [result.key for result in results] == list(range(80))
    assert all(
        np.array_equal(result.unwrap().vector, vector_of(image(result.key))) for result in results
    )
    assert most[0] == 8


def test_a_function_that_fails_costs_its_own_image_alone(connect, server):
    def fails():
        raise LookupError("no such key")

    results = list(connect(server.target).stream([image(0), fails, lambda: "text", image(3)]))
    assert [result.error and result.error.reason for result in results] == [
        None, "unreadable", "unreadable", None,
    ]  # fmt: skip
    assert "no such key" in str(results[1].error)
    assert isinstance(results[1].error.__cause__, LookupError)


def test_the_error_of_a_function_names_the_images_key(connect, server):
    def fails():
        raise LookupError("no such object")

    pairs = [("photos/1.jpg", fails), (7, lambda: "text"), ("photos/3.jpg", fails)]
    texts = [str(result.error) for result in connect(server.target).stream(pairs)]
    assert texts[0] == "'photos/1.jpg': no such object"
    assert texts[1] == "7: gave a str, not bytes"
    assert texts[2] == "'photos/3.jpg': no such object"
    (without_key,) = connect(server.target).stream([fails])
    assert str(without_key.error) == "0: no such object"


def test_the_error_of_a_file_names_the_file(connect, server, tmp_path):
    (result,) = connect(server.target).stream([("the key", tmp_path / "gone.jpg")])
    assert str(tmp_path / "gone.jpg") in str(result.error)


def test_a_pipe_and_a_directory_are_no_images(connect, server, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    client = connect(server.target)
    with pytest.raises(featurewire.ImageError, match="not a regular file") as caught:
        client.embed(pipe)
    assert caught.value.reason == "unreadable"
    assert [result.error.reason for result in client.stream([pipe, tmp_path])] == ["unreadable"] * 2


class Slow:
    """A path whose disk does not answer until the test releases it."""

    def __init__(self, gate: threading.Event) -> None:
        self._gate = gate

    def __fspath__(self) -> str:
        self._gate.wait(60)
        return "/dev/null"


os.PathLike.register(Slow)


def test_the_timeout_covers_the_reading_of_files(connect, server):
    gate = threading.Event()
    client = connect(server.target)
    with pytest.raises(featurewire.DeadlineExceededError, match="timed out while reading"):
        client.embed(Slow(gate), timeout=0.2)
    results = list(client.stream([image(0), Slow(gate), image(2)], timeout=1))
    assert [result.error and result.error.reason for result in results] == [
        None, "unreadable", None,
    ]  # fmt: skip
    assert "the file was not read within" in str(results[1].error)
    gate.set()


def test_a_stream_that_is_left_while_its_source_waits_ends(connect, server):
    gate = threading.Event()

    def source():
        yield image(0)
        gate.wait(60)
        yield image(1)

    results = connect(server.target).stream(source())
    assert next(results).key == 0
    results.close()
    gate.set()


def test_patience_does_not_count_the_time_of_the_consumer():
    """Drive a stream by hand, with a clock that the test sets."""
    settings = Settings(
        target="localhost:1",
        model=MODEL,
        retry=RetryConfig(max_attempts=1),
        channel=ChannelConfig(),
        stream=StreamConfig(),
    )
    names = Names(signature="s", input="image_bytes", output="features", status="status")
    stream = Stream(
        Connection(settings),
        Codec(model_spec(MODEL), names),
        StreamConfig(images_per_request=1, in_flight=2, patience=10.0),
    )
    for number in range(2):
        stream.fill(stream.open(number), image(number), 0.0)
    first, second = stream.due(0.0)
    gone = featurewire.ServerUnavailableError("gone")
    stream.replied(first, reply_to([image(0)]).SerializeToString(), 1.0)
    stream.failed(second, gone, 1.0)
    stream.add_paused_time(1000.0)
    (again,) = stream.due(1008.0)
    stream.failed(again, gone, 1010.0)  # after nine seconds of failures
    assert stream.error is None
    (again,) = stream.due(1011.5)
    stream.failed(again, gone, 1012.0)  # after eleven
    assert isinstance(stream.error, featurewire.ServerUnavailableError)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_stream_tells_how_long_the_consumer_held_it(server, monkeypatch, asynchronous):
    told: list[float] = []
    monkeypatch.setattr(Stream, "add_paused_time", lambda _self, seconds: told.append(seconds))
    images = [image(number) for number in range(3)]

    def hold() -> None:
        threading.Event().wait(0.2)

    async def main() -> None:
        async with featurewire.AsyncClient(server.target, model=MODEL) as client:
            async for _ in client.stream(images):
                hold()

    if asynchronous:
        asyncio.run(main())
    else:
        with featurewire.Client(server.target, model=MODEL) as client:
            for _ in client.stream(images):
                hold()
    assert sum(told) >= 0.6


def test_progress_is_told_before_results(connect, server):
    seen: list[Any] = []
    config = StreamConfig(images_per_request=4)
    results = list(
        connect(server.target, stream=config).stream(
            [image(number) for number in range(39)] + [b""], progress=seen.append
        )
    )
    assert len(results) == 40
    assert (seen[-1].read, seen[-1].answered, seen[-1].errors, seen[-1].in_flight) == (40, 40, 1, 0)
    assert [each.answered for each in seen] == sorted(each.answered for each in seen)
