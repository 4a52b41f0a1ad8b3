"""Both clients with a server that works correctly."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest

import featurewire
from featurewire import ChannelConfig, RetryConfig, StreamConfig
from tests.client.misbehaving import (
    DIMENSION,
    Misbehaving,
    eventually,
    image,
    reply_to,
    silent_server,
    vector_of,
)
from tests.support.process import free_port


@pytest.fixture
def server():
    with Misbehaving() as server:
        yield server


def test_both_clients_have_the_same_surface():
    def surface(kind):
        return {
            name: list(inspect.signature(member).parameters.values())
            for name, member in inspect.getmembers(kind, callable)
            if not name.startswith("_")
        }

    blocking, asynchronous = surface(featurewire.Client), surface(featurewire.AsyncClient)
    asynchronous["close"] = asynchronous.pop("aclose")
    assert blocking.keys() == asynchronous.keys()
    for name, parameters in blocking.items():
        for ours, theirs in zip(parameters, asynchronous[name], strict=True):
            assert (ours.name, ours.kind, ours.default) == (
                theirs.name,
                theirs.kind,
                theirs.default,
            ), name
            if (name, ours.name) != ("stream", "images"):  # may also be async
                assert ours.annotation == theirs.annotation
    constructors = [featurewire.Client.__init__, featurewire.AsyncClient.__init__]
    assert inspect.signature(constructors[0]) == inspect.signature(constructors[1])
    for name in ("embed", "embed_batch", "status", "metadata", "wait_until_ready", "aclose"):
        assert inspect.iscoroutinefunction(getattr(featurewire.AsyncClient, name))


def test_an_embedding_is_a_float32_array_with_its_version(connect, server):
    embedding = connect(server.target).embed(image(7))
    assert (embedding.model, embedding.version) == ("tiny", 1)
    assert embedding.vector.dtype == np.float32
    assert np.array_equal(np.asarray(embedding), vector_of(image(7)))
    assert np.asarray(embedding, dtype=np.float64).dtype == np.float64
    assert np.array(embedding) is not embedding.vector
    assert not np.shares_memory(np.array(embedding), embedding.vector)
    assert np.stack([embedding, embedding]).shape == (2, DIMENSION)


def test_a_batch_keeps_the_order_and_names_its_failures(connect, server):
    batch = connect(server.target).embed_batch([image(1), b"", b"text", image(2)])
    assert batch.vectors.shape == (4, DIMENSION)
    assert batch.vectors.dtype == np.float32
    assert batch.version == 1
    assert {row: error.reason for row, error in batch.errors.items()} == {
        1: "empty",
        2: "unsupported",
    }
    assert np.array_equal(batch[3].vector, vector_of(image(2)))
    assert np.isnan(batch.vectors[1]).all()
    with pytest.raises(featurewire.ImageError, match=r"image 1: empty.* 1 other image") as caught:
        batch.raise_for_errors()
    assert caught.value.reason == "empty"
    with pytest.raises(featurewire.ImageError):
        np.asarray(batch)
    with pytest.raises(featurewire.ImageError):
        batch[2]
    good = connect(server.target).embed_batch([image(1), image(2)])
    assert good.raise_for_errors() is good
    assert np.asarray(good).shape == (2, DIMENSION)


def test_a_bad_image_given_alone_raises_its_reason(connect, server):
    with pytest.raises(featurewire.ImageError, match="empty") as caught:
        connect(server.target).embed(b"")
    assert caught.value.reason == "empty"


def test_a_batch_too_big_for_one_request_is_several(connect, server):
    config = StreamConfig(images_per_request=10)
    images = [image(number) for number in range(95)]
    batch = connect(server.target, stream=config).embed_batch(images)
    assert np.array_equal(batch.vectors, np.stack([vector_of(each) for each in images]))
    assert len(server.requests) == 10


def test_a_batch_has_one_version_even_if_the_server_changes_versions(connect, server):
    calls: list[Any] = []

    def predict(images, _context):
        asked = server.requests[len(calls)].model_spec.version.value
        calls.append(asked)
        return reply_to(images, version=asked or (1 if len(calls) < 3 else 2))

    server.predict = predict
    config = StreamConfig(images_per_request=2, in_flight=1)
    images = [image(number) for number in range(8)]
    batch = connect(server.target, stream=config).embed_batch(images)
    assert batch.version == 2
    assert np.array_equal(batch.vectors, np.stack([vector_of(each, 2) for each in images]))
    assert calls[-1] == 2


def test_a_stream_gives_keys_back_in_order(connect, server):
    pairs = [(f"file-{number}", image(number)) for number in range(100)]
    results = list(connect(server.target).stream(pairs))
    assert [result.key for result in results] == [key for key, _ in pairs]
    assert np.array_equal(results[42].embedding.vector, vector_of(image(42)))


def test_one_bad_image_is_one_error_and_the_stream_goes_on(connect, server):
    images = [image(0), b"", image(2), b"text", image(4)]
    results = list(connect(server.target).stream(images))
    assert [result.error.reason if result.error else None for result in results] == [
        None,
        "empty",
        None,
        "unsupported",
        None,
    ]
    assert [result.embedding is None for result in results] == [False, True, False, True, False]
    with pytest.raises(featurewire.ImageError):
        results[1].unwrap()


def test_requests_are_packed_by_count_and_by_bytes(connect, server):
    config = StreamConfig(images_per_request=5, bytes_per_request=1000, linger=30)
    images = [image(number) + bytes(300) for number in range(6)] + [image(9) + bytes(5000)]
    list(connect(server.target, stream=config).stream(images))
    sizes = sorted(len(each.inputs["image_bytes"].string_val) for each in server.requests)
    assert sizes == [1, 3, 3]
    server.requests.clear()
    list(connect(server.target, stream=config).stream(image(number) for number in range(20)))
    assert [len(each.inputs["image_bytes"].string_val) for each in server.requests] == [5] * 4


def test_a_stream_reads_no_further_ahead_than_its_window(connect, server):
    read = [0]

    def endless():
        while True:
            read[0] += 1
            yield image(read[0])

    config = StreamConfig(images_per_request=2, in_flight=3)
    results = connect(server.target, stream=config).stream(endless())
    for taken in range(1, 500):
        next(results)
        assert read[0] - taken <= (2 * 3 + 3) * 2
    assert server.most_in_flight <= 3
    results.close() if hasattr(results, "close") else None


def test_no_more_bytes_are_in_flight_than_allowed(connect, server):
    lock, flying, most = threading.Lock(), [0], [0]

    def predict(images, _context):
        with lock:
            flying[0] += sum(map(len, images))
            most[0] = max(most[0], flying[0])
        time.sleep(0.01)
        with lock:
            flying[0] -= sum(map(len, images))
        return reply_to(images)

    server.predict = predict
    config = StreamConfig(images_per_request=1, in_flight=16, bytes_in_flight=3 * 100_000)
    data = image(1) + bytes(90_000)
    list(connect(server.target, stream=config).stream(data for _ in range(60)))
    assert most[0] <= 3 * 100_000


def test_a_stream_that_is_left_early_stops_reading_and_sending(connect, server):
    read = [0]

    def endless():
        while True:
            read[0] += 1
            yield image(read[0])

    client = connect(server.target, stream=StreamConfig(images_per_request=2))
    results = client.stream(endless())
    for _ in range(10):
        next(results)
    results.close()
    before = read[0]
    with eventually() as until:
        until(lambda: client.stats().in_flight == 0)
    assert read[0] == before
    client.embed(image(1))  # the client still works


def test_an_iterable_that_raises_ends_the_stream_after_what_was_read(connect, server):
    class Broken(Exception):
        pass

    def source():
        for number in range(37):
            yield image(number)
        raise Broken("disk on fire")

    keys = []

    def consume():
        for result in connect(server.target).stream(source()):
            assert np.array_equal(result.unwrap().vector, vector_of(image(result.key)))
            keys.append(result.key)

    with pytest.raises(Broken, match="disk on fire"):
        consume()
    assert keys == list(range(37))


def test_a_source_may_raise_what_is_no_exception(server):
    def source():
        yield image(0)
        raise SystemExit(3)

    with featurewire.Client(server.target, model="tiny") as client:
        results = client.stream(source())
        assert next(results).key == 0
        with pytest.raises(SystemExit):
            next(results)


def test_a_slow_source_gets_results_before_a_request_is_full(server):
    sent = []

    def received_more_than(number):
        return len(server.requests) > number

    def source():
        for number in range(3):
            yield image(number)
            with eventually(20) as until:  # sent although the source is still waiting
                until(partial(received_more_than, number))
            sent.append(number)

    config = StreamConfig(images_per_request=16, linger=0.05)
    with featurewire.Client(server.target, model="tiny", stream=config) as client:
        assert [result.key for result in client.stream(source())] == [0, 1, 2]
    assert sent == [0, 1, 2]


def test_a_slow_async_source_gets_each_result_before_its_next_image(server):
    answered = []

    async def main():
        arrived = asyncio.Event()

        async def source():
            for number in range(3):
                yield image(number)
                await arrived.wait()
                arrived.clear()

        config = StreamConfig(images_per_request=16, linger=0.01)
        async with featurewire.AsyncClient(server.target, model="tiny", stream=config) as client:
            async for result in client.stream(source()):
                answered.append(result.key)
                arrived.set()

    asyncio.run(asyncio.wait_for(main(), 30))
    assert answered == [0, 1, 2]


def test_only_the_outputs_that_are_needed_are_asked_for(connect, server):
    server.outputs = ("features", "status", "logits")
    connect(server.target).embed(image(1))
    assert list(server.requests[0].output_filter) == ["features", "status"]


def test_a_version_or_a_label_can_be_pinned(connect, server):
    server.predict = lambda images, _context: reply_to(images, version=3)
    connect(server.target, version=3).embed(image(1))
    assert server.requests[-1].model_spec.version.value == 3
    connect(server.target, label="stable").embed(image(1))
    assert server.requests[-1].model_spec.version_label == "stable"
    connect(server.target).embed(image(1))
    assert server.requests[-1].model_spec.WhichOneof("version_choice") is None


def test_tensor_content_is_read_as_float_val_is(connect, server):
    server.predict = lambda images, _context: reply_to(images, content=True)
    batch = connect(server.target).embed_batch([image(1), b"", image(3)])
    assert np.array_equal(batch.vectors[2], vector_of(image(3)))
    assert list(batch.errors) == [1]


def test_a_signature_without_status_and_with_other_names_is_served(connect):
    def predict(images, _context):
        return reply_to(images, output="embedding", status=False)

    with Misbehaving(predict, outputs=("embedding",), input_name="data") as server:
        assert np.array_equal(connect(server.target).embed(image(5)).vector, vector_of(image(5)))
        client = connect(server.target, input="data", output="embedding")
        assert np.array_equal(client.embed(image(6)).vector, vector_of(image(6)))


def test_a_signature_with_several_vectors_asks_which_one(connect):
    with Misbehaving(outputs=("logits", "embedding")) as server:
        with pytest.raises(
            featurewire.ConfigError, match=r"has .*logits.*one with output=…"
        ) as why:
            connect(server.target).embed(image(1))
        assert "embedding" in str(why.value)
        with pytest.raises(featurewire.ConfigError, match="no output 'nope'"):
            connect(server.target, output="nope").embed(image(1))
        with pytest.raises(featurewire.ConfigError, match="no signature 'other'"):
            connect(server.target, signature="other").embed(image(1))


def test_a_server_without_metadata_is_asked_with_the_usual_names(connect):
    with Misbehaving(metadata=False) as server:
        batch = connect(server.target).embed_batch([image(1), b""])
        assert np.array_equal(batch.vectors[0], vector_of(image(1)))
        assert list(batch.errors) == [1]


def bad_images_fail_all(images, context):
    """Fail the whole request for a bad image, like a plain SavedModel."""
    if any(not each.startswith(b"\xff\xd8\xff") for each in images):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Unknown image file format.")
    return reply_to(images, status=False)


def test_one_bad_image_fails_alone_if_the_server_fails_whole_batches(connect):
    with Misbehaving(bad_images_fail_all, outputs=("features",)) as server:
        client = connect(server.target)
        images = [image(number) for number in range(40)]
        images[7] = images[31] = b"not an image"
        results = list(client.stream(images))
        reasons = {each.key: each.error.reason for each in results if each.error}
        assert reasons == {7: "rejected", 31: "rejected"}
        assert "Unknown image file format" in str(results[7].error)
        for number in (0, 6, 8, 39):
            assert np.array_equal(results[number].embedding.vector, vector_of(image(number)))
        assert list(client.embed_batch(images).errors) == [7, 31]
        # Three requests, two of them bisected in four steps, then the bad image alone; all twice.
        assert len(server.requests) == 2 * (3 + 2 * 4 * 2 + 2)
        with pytest.raises(featurewire.ImageError) as caught:
            client.embed(b"not an image")
        assert caught.value.reason == "rejected"
        assert isinstance(caught.value.__cause__, featurewire.InvalidRequestError)


class Merging:
    """Like a batching server of a plain SavedModel: requests in one batch fail together."""

    def __init__(self) -> None:
        self._lock, self.merged = threading.Lock(), 0
        self._batch: dict[str, Any] | None = None

    def __call__(self, images, context):
        with self._lock:
            first = self._batch is None
            if first:
                self._batch = {"images": [], "done": threading.Event(), "count": 0}
            batch = self._batch
            batch["images"] += images
            batch["count"] += 1
        if first:
            time.sleep(0.005)  # the batch timeout
            with self._lock:
                self._batch = None
                self.merged += batch["count"] > 1
            batch["done"].set()
        assert batch["done"].wait(60)
        return bad_images_fail_all(batch["images"], context) and reply_to(images, status=False)


def test_a_good_image_is_never_blamed_for_one_that_it_was_merged_with(connect):
    merging = Merging()
    with Misbehaving(merging, outputs=("features",), threads=40) as server:
        client = connect(server.target, stream=StreamConfig(images_per_request=5, linger=0))
        images = [image(number) for number in range(60)]
        for bad in (1, 7, 8, 30):
            images[bad] = b"bad %d" % bad
        assert list(client.embed_batch(images[:5]).errors) == [1]
        results = list(client.stream(images))
        assert [result.key for result in results if result.error] == [1, 7, 8, 30]
        assert {result.error.reason for result in results if result.error} == {"rejected"}
    assert merging.merged


def test_good_images_of_other_threads_are_not_rejected():
    wrong = []
    with (
        Misbehaving(Merging(), outputs=("features",), threads=40) as server,
        featurewire.Client(server.target, model="tiny") as client,
    ):

        def work(thread):
            for number in range(12):
                good = thread == 0 or number % 4
                try:
                    client.embed(image(number) if good else b"bad")
                    if not good:
                        wrong.append("a vector of a bad image")
                except featurewire.ImageError as error:
                    if good or error.reason != "rejected":
                        wrong.append(error.reason)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert client.stats().in_flight == 0
    assert not wrong


def test_a_refusal_that_cannot_be_settled_is_unknown(connect):
    """Another call of the client stays in flight until this one's timeout."""
    gate = threading.Event()

    def predict(images, context):
        if image(99) in images:
            gate.wait(60)
        if b"bad" in images:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "cannot be decoded")
        return reply_to(images, status=False)

    with Misbehaving(predict, outputs=("features",)) as server, ThreadPoolExecutor(1) as pool:
        client = connect(server.target)
        client.embed(image(1))
        other = pool.submit(client.embed, image(99))
        with eventually() as until:
            until(lambda: client.stats().in_flight == 1)
        batch = client.embed_batch([image(1), b"bad", image(3)], timeout=1)
        with pytest.raises(featurewire.ImageError) as caught:
            client.embed(b"bad", timeout=1)
        gate.set()
        assert np.array_equal(other.result(60).vector, vector_of(image(99)))
        assert client.embed_batch([image(1), b"bad"]).errors[1].reason == "rejected"
    assert {row: error.reason for row, error in batch.errors.items()} == {1: "unknown"}
    assert caught.value.reason == "unknown"


def test_a_request_that_is_wrong_in_itself_is_not_blamed_on_images(connect):
    def predict(_images, context):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "input size does not match signature: 1!=2")

    with Misbehaving(predict) as server:
        with pytest.raises(featurewire.InvalidRequestError, match="does not match signature"):
            list(connect(server.target).stream(image(number) for number in range(100)))
        assert len(server.requests) <= 4


def test_a_stream_gives_up_on_a_server_that_refuses_every_image(connect):
    def predict(_images, context):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "something is off")

    with Misbehaving(predict) as server:
        with pytest.raises(featurewire.InvalidRequestError, match="something is off"):
            list(connect(server.target).stream(image(number) for number in range(10_000)))
        assert len(server.requests) < 200


def test_requests_shrink_to_a_smaller_batch_limit(connect):
    def predict(images, context):
        if len(images) > 6:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"Task size {len(images)} is larger than maximum input batch size 6",
            )
        return reply_to(images)

    with Misbehaving(predict) as server:
        results = list(connect(server.target).stream(image(number) for number in range(480)))
        assert [result.key for result in results] == list(range(480))
        assert all(result.error is None for result in results)
        refused = [
            each for each in server.requests if len(each.inputs["image_bytes"].string_val) > 6
        ]
        assert len(refused) < 12


def test_metadata_token_and_interceptors_travel_with_every_call(server):
    tokens = iter(["first", "second", "third"])
    log = []

    class Logging(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation, details, request):
            log.append(details.method)
            return continuation(details, request)

    channel = ChannelConfig(
        metadata={"x-team": "search", "trace-bin": b"\0\1"},
        token=lambda: next(tokens),
        interceptors=[Logging()],
    )
    with featurewire.Client(server.target, model="tiny", channel=channel) as client:
        client.embed(image(1))
        client.embed(image(1))
    assert [each["authorization"] for each in server.call_metadata] == [
        "Bearer second",  # the first one was sent with the metadata request
        "Bearer third",
    ]
    assert server.call_metadata[0]["x-team"] == "search"
    assert server.call_metadata[0]["trace-bin"] == b"\0\1"
    assert (
        log
        == ["/tensorflow.serving.PredictionService/GetModelMetadata"]
        + ["/tensorflow.serving.PredictionService/Predict"] * 2
    )


def test_an_async_interceptor_sees_every_call(server):
    log = []

    class Logging(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation, details, request):
            log.append(details.method)
            return await continuation(details, request)

    async def main():
        channel = ChannelConfig(interceptors=[Logging()], metadata=[("x-team", "search")])
        async with featurewire.AsyncClient(server.target, model="tiny", channel=channel) as client:
            await client.embed(image(1))

    asyncio.run(asyncio.wait_for(main(), 30))
    assert len(log) == 2
    assert server.call_metadata[0]["x-team"] == "search"


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_requests_can_be_compressed(connect, server, compression):
    client = connect(server.target, channel=ChannelConfig(compression=compression))
    assert np.array_equal(client.embed(image(1) + bytes(9999)).vector, vector_of(image(1)))


def test_stats_count_what_happened(connect, server):
    client = connect(server.target, stream=StreamConfig(images_per_request=10))
    assert client.stats() == featurewire.Stats()
    list(client.stream([image(number) for number in range(19)] + [b""]))
    stats = client.stats()
    assert (stats.images, stats.image_errors, stats.retries, stats.failures) == (20, 1, 0, 0)
    assert stats.requests == 3  # the metadata, and two requests of ten images
    assert stats.in_flight == 0
    assert stats.bytes_sent > 19 * len(image(0))
    assert stats.bytes_received > 20 * DIMENSION * 4
    assert 0 < stats.latency["p50"] <= stats.latency["p99"] <= stats.latency["max"] < 60


def test_status_lists_versions_and_states(connect, server):
    server.states = [(2, 30), (1, 50), (3, 20)]
    status = connect(server.target).status()
    assert [(each.version, each.state) for each in status.versions] == [
        (3, "LOADING"),
        (2, "AVAILABLE"),
        (1, "END"),
    ]
    assert status.available


def test_waiting_until_ready_sees_a_model_become_available(connect, server):
    server.states = [(1, 20)]
    threading.Timer(0.5, lambda: server.states.__setitem__(0, (1, 30))).start()
    assert connect(server.target).wait_until_ready(20).available


def test_waiting_until_ready_waits_for_the_label_too(connect, server):
    client = connect(server.target, label="canary")
    with pytest.raises(featurewire.DeadlineExceededError, match="label: canary"):
        client.wait_until_ready(0.4)
    threading.Timer(0.3, lambda: server.labels.add("canary")).start()
    assert client.wait_until_ready(20).available


def test_waiting_until_ready_does_not_spend_the_retry_budget(connect, server):
    port = server.port
    server.stop()
    client = connect(
        f"127.0.0.1:{port}", retry=RetryConfig(budget=3, budget_ratio=0, initial_backoff=0.01)
    )
    threading.Timer(1.0, server.start).start()
    assert client.wait_until_ready(20).available
    counter = itertools.count()

    def predict(images, context):
        if next(counter) < 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        return reply_to(images)

    server.predict = predict
    assert np.array_equal(client.embed(image(1)).vector, vector_of(image(1)))


def test_a_model_that_is_still_loading_says_so(connect, server):
    server.states = [(1, 20)]
    with pytest.raises(featurewire.DeadlineExceededError, match="version 1 is LOADING"):
        connect(server.target).wait_until_ready(0.4)


def test_is_ready_tells_by_one_look(connect, server):
    client = connect(server.target)
    assert client.is_ready() is True
    assert connect(server.target, label="stable").is_ready() is True
    assert connect(server.target, label="canary").is_ready() is False
    server.states = [(1, 20)]
    assert client.is_ready() is False
    server.stop()
    assert client.is_ready() is False
    client.close()
    with pytest.raises(featurewire.ConfigError, match="closed"):
        client.is_ready()


def test_is_ready_ends_in_time(connect):
    with silent_server() as silent:
        assert connect(silent.target).is_ready(0.3) is False


def test_one_of_several_servers_is_enough_to_be_ready(connect, server):
    client = connect(f"127.0.0.1:{free_port()},{server.target}")
    for _ in range(4):
        assert client.is_ready() is True


def test_a_closed_client_says_so(connect, server):
    client = connect(server.target)
    client.embed(image(1))
    client.close()
    client.close()
    for use in (
        lambda: client.embed(image(1)),
        lambda: client.embed_batch([image(1)]),
        lambda: list(client.stream([image(1)])),
        client.status,
    ):
        with pytest.raises(featurewire.ConfigError, match="closed"):
            use()


def test_many_threads_share_one_client(server):
    failures = []

    def work(client, start):
        for number in range(start, start + 50):
            if not np.array_equal(client.embed(image(number)).vector, vector_of(image(number))):
                failures.append(number)

    with featurewire.Client(server.target, model="tiny") as client:
        threads = [threading.Thread(target=work, args=(client, 100 * i)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert client.stats().images == 400
    assert not failures


def test_an_async_iterable_is_streamed(server):
    async def source():
        for number in range(50):
            await asyncio.sleep(0)
            yield number, image(number)

    async def main():
        async with featurewire.AsyncClient(server.target, model="tiny") as client:
            return [result.key async for result in client.stream(source())]

    assert asyncio.run(asyncio.wait_for(main(), 30)) == list(range(50))


def test_an_async_iterable_in_the_sync_client_points_to_the_async_one(server):
    async def source():
        yield image(1)

    with (
        featurewire.Client(server.target, model="tiny") as client,
        pytest.raises(TypeError, match="AsyncClient"),
    ):
        client.stream(source())


def test_an_async_client_in_another_loop_says_so(server):
    client = featurewire.AsyncClient(server.target, model="tiny")

    async def first():
        await client.embed(image(1))

    async def second():
        with pytest.raises(featurewire.ConfigError, match="event loop"):
            await client.embed(image(1))

    asyncio.run(first())
    asyncio.run(second())
