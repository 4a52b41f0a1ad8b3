"""Both clients with `featurewire serve` in a separate process, with tiny SavedModels."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import threading
from typing import Any

import numpy as np
import pytest

import featurewire
from featurewire import RetryConfig, StreamConfig
from tests.support.models import JPEG_MAGIC, expected_vector, write_tiny_model
from tests.support.process import serving
from tests.support.shared import server_for_all_workers

READY = 60.0


def image(number: int) -> bytes:
    return JPEG_MAGIC + number.to_bytes(4, "big")


def test_vectors_reasons_and_version(connect, tiny_server):
    client = connect(tiny_server.target)
    batch = client.embed_batch([image(1), b"", b"text", image(2)])
    assert batch.version == 2
    assert np.array_equal(batch.vectors[0], expected_vector(image(1), version=2))
    assert np.array_equal(batch.vectors[3], expected_vector(image(2), version=2))
    assert {row: error.reason for row, error in batch.errors.items()} == {
        1: "empty",
        2: "unsupported",
    }


def test_a_stream_in_order(connect, tiny_server):
    results = list(connect(tiny_server.target).stream(image(number) for number in range(500)))
    assert [result.key for result in results] == list(range(500))
    for number, result in enumerate(results):
        assert np.array_equal(result.unwrap().vector, expected_vector(image(number), version=2))


def test_status_metadata_and_manifest(connect, tiny_server):
    client = connect(tiny_server.target)
    assert client.status().available
    metadata = client.metadata()
    assert metadata.version == 2
    assert metadata.manifest["vector_space"] == "tiny-2"
    signature = metadata.signatures["serving_default"]
    assert signature.inputs["image_bytes"] == featurewire.TensorSpec(dtype="DT_STRING", shape=(-1,))
    assert signature.outputs["features"].shape == (-1, 8)


def test_wrong_names_say_what_is_wrong(connect, tiny_server):
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"model": "no_such"}, "no_such"),
        ({"version": 9}, "9"),
        ({"label": "none"}, "none"),
    ]
    for arguments, words in wrong:
        with pytest.raises(featurewire.ModelNotFoundError, match=words):
            connect(tiny_server.target, **arguments).embed(image(1))
    with pytest.raises(featurewire.ConfigError, match="serving_default"):
        connect(tiny_server.target, signature="nope").embed(image(1))
    with pytest.raises(featurewire.ModelNotFoundError):
        connect(tiny_server.target, model="no_such").status()


def test_the_servers_rest_port_says_that_it_is_no_grpc_port(connect, tiny_server):
    port = f"127.0.0.1:{tiny_server.rest_port}"
    client = connect(port, retry=RetryConfig(max_attempts=1), timeout=60)
    with pytest.raises(featurewire.ServerUnavailableError, match="8500"):
        client.embed(image(1))


@pytest.fixture(scope="module")
def plain_server(tmp_path_factory):
    """A model without status and manifest, in which a bad image fails its whole batch."""

    def flags(folder):
        models, parameters = folder / "models", folder / "batching.config"
        write_tiny_model(models, with_status=False, with_manifest=False, fails_on_bad_image=True)
        parameters.write_text(
            "max_batch_size { value: 64 } batch_timeout_micros { value: 20000 }\n"
            "max_enqueued_batches { value: 1000 } num_batch_threads { value: 2 }\n"
        )
        model = ["--model_name=tiny", f"--model_base_path={models}"]
        return [*model, "--enable_batching", f"--batching_parameters_file={parameters}"]

    with server_for_all_workers(tmp_path_factory, "plain", flags) as server:
        with featurewire.Client(server.target, model="tiny") as client:
            client.wait_until_ready(READY)
        yield server


@pytest.fixture(scope="module")
def killable(tiny_model, tmp_path_factory):
    with serving(tiny_model, log=tmp_path_factory.mktemp("own") / "server.log") as server:
        yield server


@pytest.fixture
def own_server(killable):
    """A server that the test may kill."""
    if killable.process.poll() is not None:
        killable.start()
    with featurewire.Client(killable.target, model="tiny") as client:
        client.wait_until_ready(READY)
    return killable


def test_a_bad_image_fails_alone_on_a_plain_saved_model(connect, plain_server):
    client = connect(plain_server.target)
    assert client.metadata().manifest is None
    images = [image(number) for number in range(20)]
    images[13] = b"text"
    results = list(client.stream(images))
    assert {result.key: result.error.reason for result in results if result.error} == {
        13: "rejected"
    }
    assert np.array_equal(results[12].embedding.vector, expected_vector(image(12)))


def test_every_image_yields_one_result_through_the_servers_death(connect, own_server):
    client = connect(
        own_server.target,
        stream=StreamConfig(images_per_request=4, patience=100),
        retry=RetryConfig(max_backoff=0.5),
    )
    results = client.stream(image(number) for number in range(3000))
    first = [next(results) for _ in range(300)]
    own_server.kill()
    restart = threading.Thread(target=own_server.start)
    restart.start()
    keys = []
    for result in itertools.chain(first, results):
        assert np.array_equal(result.unwrap().vector, expected_vector(image(result.key), version=2))
        keys.append(result.key)
    restart.join(READY)
    assert keys == list(range(3000))
    assert client.stats().retries > 0


def test_threads_behind_a_batching_server_get_no_good_image_rejected(plain_server):
    """With a plain SavedModel, all requests in a batch with a bad image fail."""
    wrong, reasons, barrier = [], set(), threading.Barrier(16, timeout=READY)

    def work(client, thread):
        barrier.wait()
        for number in range(10):
            good = number % 5 != thread % 5
            try:
                vector = client.embed(image(number) if good else b"text").vector
                if not good or not np.array_equal(vector, expected_vector(image(number))):
                    wrong.append("a wrong vector")
            except featurewire.ImageError as error:
                reasons.add((good, error.reason))

    with featurewire.Client(plain_server.target, model="tiny") as client:
        threads = [threading.Thread(target=work, args=(client, each)) for each in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * READY)
        assert client.stats().images == 16 * 10
    assert (False, "rejected") in reasons
    assert (True, "rejected") not in reasons
    assert not wrong


def test_with_two_servers_a_stopped_one_costs_one_call_and_comes_back(
    connect, tiny_server, own_server
):
    client = connect(f"{own_server.target},{tiny_server.target}", timeout=4)
    for number in range(4):
        client.embed(image(number))
    os.kill(own_server.pid, signal.SIGSTOP)
    try:
        failed = 0
        for number in range(8):
            try:
                client.embed(image(number))
            except featurewire.DeadlineExceededError:
                failed += 1
        # A stream also moves its stalled requests to the other server.
        results = list(client.stream(map(image, range(100))))
    finally:
        os.kill(own_server.pid, signal.SIGCONT)
    assert failed <= 1
    assert all(result.error is None for result in results)


def test_with_two_servers_a_stream_does_not_notice_the_death_of_one(tiny_server, own_server):
    with featurewire.Client(
        f"{own_server.target},{tiny_server.target}",
        model="tiny",
        stream=StreamConfig(images_per_request=4),
    ) as client:
        results = client.stream(image(number) for number in range(3000))
        first = [next(results) for _ in range(300)]
        own_server.kill()
        keys = [each.key for each in itertools.chain(first, results) if not each.error]
        assert keys == list(range(3000))


def test_a_new_version_is_followed_and_every_vector_names_its_own(tmp_path):
    base_path, prepared = tmp_path / "models", tmp_path / "prepared"
    write_tiny_model(base_path, 1)
    write_tiny_model(prepared, 2)
    config = StreamConfig(images_per_request=4)
    with (
        serving(
            base_path, "--file_system_poll_wait_seconds=1", log=tmp_path / "server.log"
        ) as server,
        featurewire.Client(server.target, model="tiny", stream=config) as client,
    ):
        client.wait_until_ready(READY)
        published = threading.Event()

        def until_both():
            for number in itertools.count():
                if number == 50:
                    shutil.move(prepared / "2", base_path / "2")
                yield image(number)
                if published.is_set():
                    return

        versions = set()
        for result in client.stream(until_both()):
            embedding = result.unwrap()
            expected = expected_vector(image(result.key), version=embedding.version)
            assert np.array_equal(embedding.vector, expected)
            versions.add(embedding.version)
            if embedding.version == 2:
                published.set()
        assert versions == {1, 2}
