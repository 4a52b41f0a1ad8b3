"""Versions, labels, vector spaces, views of a client, and its repr."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import featurewire
from featurewire import RetryConfig, StreamConfig
from featurewire._tfs import get_model_metadata_pb2, predict_pb2, types_pb2
from tests.client.misbehaving import Misbehaving, image, reply_to, vector_of

SPACES = {1: "old", 2: "new", 3: "newest"}
BRIDGE = "bridge_old"
"""The signature of version 3 with a bridge to version 1's space."""


def manifest(version: int) -> predict_pb2.PredictResponse:
    reply = predict_pb2.PredictResponse()
    reply.model_spec.version.value = version
    about: dict[str, Any] = {"vector_space": SPACES[version]}
    if version == 3:
        native = {"vector_space": SPACES[3], "signature": "serving_default", "bridged": False}
        bridge = {"vector_space": "old", "signature": BRIDGE, "dimension": 8, "bridged": True}
        about["vector_spaces"] = [native, bridge]
    tensor = reply.outputs["manifest"]
    tensor.dtype = types_pb2.DT_STRING
    tensor.string_val.append(json.dumps(about).encode())
    return reply


class Versions(Misbehaving):
    """Serves versions with manifests; `stable` is the version of the label, and the default."""

    def __init__(self) -> None:
        super().__init__(self.answer)
        self.stable = 1
        self.gone: set[int] = set()
        self.threads_lock = threading.Lock()

    def on_predict(self, data, context):
        request = predict_pb2.PredictRequest.FromString(data)
        version = request.model_spec.version.value or self.stable
        if version in self.gone:
            context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"Servable not found for request: Specific(tiny, {version})",
            )
        if request.model_spec.signature_name == "manifest":
            return manifest(version).SerializeToString()
        if request.model_spec.signature_name == BRIDGE and version != 3:
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{BRIDGE}" not found.'
            )
        with self.threads_lock:
            self.requests.append(request)
        images = list(request.inputs["image_bytes"].string_val)
        bridged = request.model_spec.signature_name == BRIDGE
        return self.answer(images, context, version, bridged).SerializeToString()

    def on_metadata(self, data, context):
        request = get_model_metadata_pb2.GetModelMetadataRequest.FromString(data)
        reply = get_model_metadata_pb2.GetModelMetadataResponse.FromString(
            super().on_metadata(data, context)
        )
        reply.model_spec.version.value = request.model_spec.version.value or self.stable
        return reply.SerializeToString()

    def answer(self, images, context, version=1, bridged=False):
        """Check that the bridge gives version 1's vectors, which differ from the native ones."""
        reply = reply_to(images, version=1 if bridged else version)
        reply.model_spec.version.value = version
        return reply


@pytest.fixture
def server():
    with Versions() as server:
        yield server


def test_a_label_follows_a_promotion_between_two_requests(connect, server):
    client = connect(server.target, label="stable")
    assert client.embed(image(1)).version == 1
    server.stable = 2
    assert client.embed(image(1)).version == 2
    assert server.requests[-1].model_spec.version_label == "stable"


def test_vectors_of_another_space_are_never_handed_out(connect, server):
    client = connect(server.target, label="stable", vector_space="old")
    assert client.embed(image(1)).bridged is False
    config = StreamConfig(images_per_request=1, in_flight=1)
    stream = connect(server.target, label="stable", vector_space="old", stream=config).stream(
        image(number) for number in range(1000)
    )
    assert next(stream).unwrap().version == 1
    server.stable = 2
    for call in (
        lambda: client.embed(image(1)),
        lambda: client.embed_batch([image(number) for number in range(40)]),
        lambda: [result.unwrap().version for result in stream if result.embedding.version != 1],
    ):
        with pytest.raises(
            featurewire.VectorSpaceError, match="version 2 has the vector space 'new'"
        ):
            call()
    server.stable = 1
    assert client.embed(image(1)).version == 1


def test_a_version_that_names_no_space_is_refused_where_one_is_wanted(connect):
    def predict(images, context):
        if not images:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "signature key not found")
        return reply_to(images)

    with Misbehaving(predict) as plain:
        client = connect(plain.target, vector_space="old")
        with pytest.raises(featurewire.VectorSpaceError, match="does not name its vector space"):
            client.embed(image(1))


def test_a_version_retired_before_its_space_was_read_costs_no_call(connect, server):
    ask = server.on_metadata

    def ask_and_retire(data, context):
        reply = ask(data, context)
        server.gone.add(1)
        server.stable = 2
        return reply

    server.on_metadata = ask_and_retire
    server.stop()
    server.start()
    assert connect(server.target, label="stable", vector_space="new").embed(image(1)).version == 2


def test_a_bridge_answers_for_the_space_that_is_wanted(connect, server):
    server.stable = 3
    client = connect(server.target, label="stable", vector_space="old")
    embedding = client.embed(image(1))
    assert (embedding.version, embedding.bridged) == (3, True)
    assert np.array_equal(embedding.vector, vector_of(image(1), 1))
    batch = client.embed_batch([image(1), b""])
    assert (batch.bridged, batch[0].bridged) == (True, True)
    assert (
        connect(server.target, label="stable", vector_space="newest").embed(image(1)).version == 3
    )
    assert not connect(server.target, label="stable").embed(image(1)).bridged
    assert {each.model_spec.signature_name for each in server.requests[:2]} == {BRIDGE}


def test_a_view_with_a_vector_space_asks_which_version_answers_now(server):
    with featurewire.Client(server.target, model="tiny", label="stable") as client:
        assert client.embed(image(1)).version == 1
        server.stable = 2
        assert client.with_options(vector_space="new").embed(image(1)).version == 2
        with pytest.raises(featurewire.VectorSpaceError, match="version 2 has"):
            client.with_options(vector_space="old").embed(image(1))


def test_a_signature_that_is_a_bridge_is_no_other_space(connect, server):
    server.stable = 3
    server.signatures = ("serving_default", BRIDGE)
    client = connect(server.target, vector_space="old", signature=BRIDGE)
    assert client.embed(image(1)).bridged
    with pytest.raises(featurewire.VectorSpaceError, match="not the requested 'newest'"):
        connect(server.target, vector_space="newest", signature=BRIDGE).embed(image(1))


def test_a_label_moves_under_calls_that_want_one_space(connect, server):
    """It moves to the version with a bridge and back, so cached metadata is wrong each time."""
    client = connect(server.target, label="stable", vector_space="old")
    for version in (1, 3, 1, 3):
        server.stable = version
        for embed in (client.embed, lambda one: client.embed_batch([one])[0]):
            embedding = embed(image(7))
            assert (embedding.version, embedding.bridged) == (version, version == 3)
            assert np.array_equal(embedding.vector, vector_of(image(7), 1))
        many = [image(number) for number in range(40)]
        batch = client.embed_batch(many)
        assert np.array_equal(batch.vectors, [vector_of(each, 1) for each in many])
    server.stable = 2
    with pytest.raises(featurewire.VectorSpaceError, match="and has no bridge to it"):
        client.embed(image(1))


def test_a_label_moves_under_a_stream_that_wants_one_space(connect, server):
    """Move it on each replica in turn, with requests in flight, and unload the other version."""
    with Versions() as second:
        replicas: tuple[Any, ...] = (server, second)
        moves = iter([(0, 3), (1, 3), (0, 1), (1, 1), (0, 3), (1, 3)])
        client = connect(
            f"{server.target},{second.target}", label="stable", vector_space="old",
            stream=StreamConfig(images_per_request=2, in_flight=8),
        )  # fmt: skip
        keys, seen = [], set()
        for result in client.stream(image(number) for number in range(3000)):
            embedding = result.unwrap()
            keys.append(result.key)
            seen.add((embedding.version, embedding.bridged))
            assert np.array_equal(embedding.vector, vector_of(image(result.key), 1))
            if result.key % 400 == 200 and (move := next(moves, None)):
                which, version = move
                replicas[which].stable = version
                if replicas[0].stable == replicas[1].stable:
                    for each in replicas:
                        each.gone = {4 - version}
                else:
                    for each in replicas:
                        each.gone = set()
    assert keys == list(range(3000))
    assert seen == {(1, False), (3, True)}


def test_a_stream_ends_with_all_before_a_version_without_the_space(connect, server):
    server.stable = 3
    config = StreamConfig(images_per_request=2, in_flight=4)
    client = connect(server.target, label="stable", vector_space="old", stream=config)
    keys = []

    def consume():
        for result in client.stream(image(number) for number in range(10_000)):
            keys.append(result.key)
            if result.key == 100:
                server.stable = 2

    with pytest.raises(featurewire.VectorSpaceError, match="version 2 has the vector space 'new'"):
        consume()
    assert keys == list(range(len(keys)))
    assert len(keys) > 100


def test_a_pinned_stream_keeps_to_the_bridge_of_its_version(connect, server):
    server.stable = 3
    config = StreamConfig(pin_version=True, images_per_request=2)
    client = connect(server.target, label="stable", vector_space="old", stream=config)
    results = client.stream(image(number) for number in range(400))
    first = next(results)
    server.stable = 1
    embeddings = [result.unwrap() for result in [first, *results]]
    assert {(each.version, each.bridged) for each in embeddings} == {(3, True)}


def test_a_stream_can_pin_the_version_that_a_label_means_at_its_start(connect, server):
    config = StreamConfig(pin_version=True, images_per_request=2)
    client = connect(server.target, label="stable", stream=config)
    results = client.stream(image(number) for number in range(400))
    first = next(results)
    server.stable = 2
    assert {result.unwrap().version for result in [first, *results]} == {1}
    assert client.embed(image(1)).version == 2


def test_a_retired_pinned_version_raises_after_all_earlier_results(connect, server):
    config = StreamConfig(pin_version=True, images_per_request=2, in_flight=4)
    client = connect(server.target, stream=config)
    keys = []

    def consume():
        for result in client.stream(image(number) for number in range(10_000)):
            assert np.array_equal(result.unwrap().vector, vector_of(image(result.key)))
            keys.append(result.key)
            if result.key == 100:
                server.gone.add(1)

    with pytest.raises(featurewire.ModelNotFoundError, match=r"Specific\(tiny, 1\)"):
        consume()
    assert keys == list(range(len(keys)))
    assert len(keys) > 100
    # Several requests were in flight at the unload; results before the first failure are delivered.
    answered = {data for each in server.requests for data in each.inputs["image_bytes"].string_val}
    assert len(keys) == next(number for number in range(10_000) if image(number) not in answered)


def test_what_was_sent_before_a_failure_is_delivered_first(connect):
    """The reply to the first request arrives after the rejection of the second."""
    refused = threading.Event()

    def predict(images, context):
        if image(1) in images:
            refused.set()
            context.abort(grpc.StatusCode.INTERNAL, "a bug")
        assert refused.wait(60)
        return reply_to(images)

    with Misbehaving(predict) as server:
        config = StreamConfig(images_per_request=1, in_flight=2)
        results = connect(server.target, stream=config).stream([image(0), image(1), image(2)])
        assert next(results).key == 0
        with pytest.raises(featurewire.ServerError, match="a bug"):
            next(results)


def test_a_view_has_its_own_options(connect, server):
    remaining = []
    answer = server.answer

    def noted(images, context, *more):
        remaining.append(context.time_remaining())
        return answer(images, context, *more)

    server.answer = noted
    server.labels.add("canary")
    client = connect(server.target, label="stable")
    client.with_options(timeout=5, version=2).embed(image(1))
    client.with_options(label="canary").embed(image(1))
    client.embed(image(1))
    with pytest.raises(featurewire.ConfigError):
        client.with_options(timeout=-1)
    asked = [
        (request.model_spec.version.value, request.model_spec.version_label)
        for request in server.requests
    ]
    assert asked == [(2, ""), (0, "canary"), (0, "stable")]
    assert remaining[0] < 6 < remaining[-1]  # gRPC rounds a timeout up


def test_a_view_sends_its_metadata_and_asks_nothing_again(server):
    with featurewire.Client(
        server.target, model="tiny",
        channel=featurewire.ChannelConfig(metadata={"team": "search", "trace": "1"}),
    ) as client:  # fmt: skip
        client.embed(image(1))
        asked = client.stats().requests
        view = client.with_options(timeout=5, metadata={"trace": "2"})
        assert view.embed(image(1)).version == 1
        assert client.stats().requests == asked + 1
        view.close()
        assert client.embed(image(1)).version == 1
    with pytest.raises(featurewire.ConfigError, match="closed"):
        view.embed(image(1))


def test_the_user_agent_and_the_views_metadata_travel():
    with Misbehaving() as plain, featurewire.Client(plain.target, model="tiny") as client:
        client.with_options(metadata={"trace": "2"}).embed(image(1))
        assert plain.call_metadata[-1]["trace"] == "2"
        agent = plain.call_metadata[-1]["user-agent"]
        assert str(agent).startswith(f"featurewire/{featurewire.__version__} ")


def test_first_calls_that_race_ask_for_the_signature_once():
    with Misbehaving(threads=40) as plain:
        asked, ask = [], plain.on_metadata
        gate = threading.Barrier(16, timeout=60)

        def on_metadata(data, context):
            asked.append(1)
            return ask(data, context)

        plain.on_metadata = on_metadata
        plain.stop()
        plain.start()
        with featurewire.Client(plain.target, model="tiny") as client:

            def work():
                gate.wait()
                client.embed(image(1))

            threads = [threading.Thread(target=work) for _ in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert client.stats().images == 16
        assert len(asked) == 1


def test_first_calls_that_race_in_an_event_loop_ask_once_too():
    with Misbehaving(threads=40) as plain:
        asked, ask = [], plain.on_metadata

        def on_metadata(data, context):
            asked.append(1)
            return ask(data, context)

        plain.on_metadata = on_metadata
        plain.stop()
        plain.start()

        async def race():
            async with featurewire.AsyncClient(plain.target, model="tiny") as client:
                calls = (client.embed(image(number)) for number in range(16))
                return await asyncio.wait_for(asyncio.gather(*calls), 30)

        assert len(asyncio.run(race())) == 16
    assert len(asked) == 1


def test_a_client_says_what_it_is_and_cannot_be_pickled(connect):
    client = connect("localhost:1", label="stable")
    base = getattr(client, "client", client)
    assert f"{base!r}" in (
        "Client('localhost:1', model='tiny', label='stable')",
        "AsyncClient('localhost:1', model='tiny', label='stable')",
    )
    with pytest.raises(TypeError, match="make one in each process"):
        pickle.dumps(base)


def test_attempts_and_retries_are_logged_at_debug(connect, caplog):
    def predict(images, context):
        if len(full.requests) < 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "queue x is full")
        return reply_to(images)

    with Misbehaving(predict) as full, caplog.at_level(logging.DEBUG, "featurewire"):
        connect(full.target, retry=RetryConfig(initial_backoff=0.01)).embed(image(1))
    text = caplog.text
    assert "retry attempt of Predict" in text
    assert "OverloadedError" in text


def test_an_overload_says_what_was_spent(connect):
    def predict(_images, context):
        context.abort(grpc.StatusCode.UNAVAILABLE, "queue x is full")

    with Misbehaving(predict) as server:
        client = connect(server.target, retry=RetryConfig(max_attempts=3, initial_backoff=0.01))
        with pytest.raises(
            featurewire.OverloadedError,
            match=r"\(3 attempts in \d+\.\d s; 18 of 20 retries of the client's budget left\)",
        ):
            client.embed(image(1))


def test_a_batch_of_unreadable_files_guesses_no_version(connect, server, tmp_path):
    client = connect(server.target)
    client.embed(image(1))
    batch = client.embed_batch([tmp_path / "no-such-file"])
    assert (batch.version, batch.errors[0].reason) == (0, "unreadable")


def test_slices_and_truths_hand_out_no_vector_of_a_failed_row(connect, server):
    batch = connect(server.target).embed_batch([image(0), b"", image(2)])
    assert [each.version for each in batch[::2]] == [1, 1]
    with pytest.raises(featurewire.ImageError):
        batch[1:2]
    with pytest.raises(TypeError):
        batch[True]
    with pytest.raises(TypeError):
        batch[np.True_]
    assert np.array_equal(batch[np.int64(2)].vector, vector_of(image(2)))


def test_a_model_named_like_an_error_is_not_searched_for_it(connect):
    def predict(images, context):
        if b"bad" in images:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "ModelSpec: does not decode")
        return reply_to(images, status=False)

    with Misbehaving(predict, outputs=("features",)) as server:
        client = connect(server.target, model="ModelSpec")
        batch = client.embed_batch([image(1), b"bad"])
        assert batch.errors[1].reason == "rejected"


TYPED = """
from typing import Any
from collections.abc import Iterator
index: Any = None
{example}
def keys(client: featurewire.Client, images: list[bytes]) -> Iterator[int]:
    for result in client.stream(images):
        if result.error is None:
            yield result.key + len(result.embedding)
        else:
            reason: str = result.error.reason
            print(reason)
def names(client: featurewire.Client) -> Iterator[str]:
    for result in client.stream([("a", b"1")]):
        yield result.key
"""


@pytest.mark.slow
def test_the_ten_lines_of_the_readme_are_typed(tmp_path):
    root = Path(__file__).resolve().parents[2]
    text = (root / "README.md").read_text()
    example = text.split("```python\n")[1].split("```")[0]
    file = tmp_path / "example.py"
    file.write_text(TYPED.format(example=example))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache",
         "--config-file", "", file],
        capture_output=True, text=True, timeout=240, check=False,
        cwd=root, env={"MYPYPATH": str(root / "client"), "PATH": "/usr/bin"},
    )  # fmt: skip
    assert "example.py" not in done.stdout, done.stdout
    assert done.returncode in (0, 1), done.stderr
