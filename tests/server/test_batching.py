"""Which requests share a batch, how they are padded, refused, split and forgotten."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf import text_format

from featurewire_server._tfs.session_bundle_config_pb2 import BatchingParameters
from featurewire_server.batching.batch import Batch, Piece
from featurewire_server.batching.config import BatchingConfig
from featurewire_server.batching.queue import Queue
from featurewire_server.batching.runner import BatchScheduler, Runner
from featurewire_server.batching.task import Task, Terms
from featurewire_server.common.errors import ServingError
from featurewire_server.common.loop import event_loop, run
from featurewire_server.common.metrics import Metrics
from featurewire_server.messages.predict import Run
from featurewire_server.messages.rows import merge, refused_rows
from tests.server.support import (
    JPEG,
    MODEL,
    TIMEOUT,
    FakeEngine,
    code_and_text,
    config,
    model,
    predict_request,
    served,
    spec,
)
from tests.support.models import expected_vector, write_tiny_model
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def scheduler() -> BatchScheduler:
    return BatchScheduler(2)


@pytest.fixture(scope="module")
def single() -> BatchScheduler:
    return BatchScheduler(1)


def asked(signature: str, **inputs: np.ndarray) -> Run:
    return Run(signature_name=signature, inputs=inputs, outputs=["y"], examples=1)


class Bench:
    """A runner over a fake engine, called many times at once."""

    def __init__(
        self, scheduler, signatures=("serving_default", "other"), metrics=None, pads=True, **options
    ) -> None:
        self.engine = FakeEngine(signatures)
        self.engine.pads = pads
        config = BatchingConfig(**options)
        self.runner = Runner("m", self.engine, config, scheduler, metrics)

    def submit(self, *values: float, signature="serving_default", wait=True, **options):
        """One request of a row for each value; returns a future of its outputs."""
        array = np.array(values, np.float32).reshape(-1, 1)
        return self.submit_array(array, signature, wait, **options)

    def hold(self, value: float):
        """A request that runs, and goes on running as long as the gate is closed."""
        future = self.submit(value)
        wait_until(lambda: self.engine.running)
        return future

    def submit_array(self, array, signature="serving_default", wait=True, **options):
        before = self.enqueued(), len(self.engine.calls)
        run = asked(signature, x=array)
        future = asyncio.run_coroutine_threadsafe(
            self.runner.run(run, Terms(**options)), event_loop()
        )
        if wait:
            wait_until(lambda: future.done() or (self.enqueued(), len(self.engine.calls)) != before)
        return future

    def enqueued(self) -> list[int]:
        """The tasks that wait, by identity."""
        return [
            id(task)
            for queue in list(self.runner.queues.values())
            for line in queue.lines.values()
            for task in list(line.tasks)
        ]

    def sizes(self) -> list[int]:
        return [len(array) for _, array in self.engine.calls]


def test_requests_are_merged_and_each_gets_its_own_rows(scheduler) -> None:
    bench = Bench(scheduler, max_batch_size=4, timeout=30)
    found = [bench.submit(1), bench.submit(2, 3), bench.submit(4)]
    results = [future.result(TIMEOUT)["y"].ravel().tolist() for future in found]
    assert results == [[2], [4, 6], [8]]
    assert bench.sizes() == [4]


def test_a_batch_does_not_wait_longer_than_its_timeout(scheduler) -> None:
    bench = Bench(scheduler, max_batch_size=4, timeout=0.01)
    assert bench.submit(1).result(TIMEOUT)["y"].tolist() == [[2]]


def test_batches_are_padded_with_their_first_row(scheduler) -> None:
    bench = Bench(scheduler, max_batch_size=8, allowed_sizes=(2, 8), timeout=0)
    assert bench.submit(5, 6, 7).result(TIMEOUT)["y"].ravel().tolist() == [10, 12, 14]
    assert bench.engine.calls[0][1].ravel().tolist() == [5, 6, 7, 5, 5, 5, 5, 5]


def test_an_engine_that_does_not_pad_gets_the_rows_there_are(scheduler) -> None:
    bench = Bench(scheduler, pads=False, max_batch_size=8, allowed_sizes=(2, 8), timeout=0)
    assert bench.submit(5, 6, 7).result(TIMEOUT)["y"].ravel().tolist() == [10, 12, 14]
    assert bench.engine.calls[0][1].ravel().tolist() == [5, 6, 7]


def test_rows_are_not_padded_while_another_batch_runs(
    scheduler,
) -> None:
    bench = Bench(scheduler, max_batch_size=8, allowed_sizes=(1, 4, 8), timeout=0.2)
    bench.engine.gate.clear()
    found = [bench.submit(1), bench.submit(2, 3), bench.submit(4)]
    wait_until(lambda: bench.engine.running == 1)
    found += [bench.submit(value) for value in (5, 6, 7, 8, 9, 10)]
    wait_until(lambda: bench.engine.running == 2)
    bench.engine.gate.set()
    futures.wait(found, TIMEOUT)
    assert bench.engine.calls[0][1].ravel().tolist() == [1, 2, 3, 4]
    assert bench.engine.calls[1][1].ravel().tolist() == [5, 6, 7, 8]
    assert [f.result()["y"].ravel().tolist() for f in found[3:]] == [
        [10],
        [12],
        [14],
        [16],
        [18],
        [20],
    ]


def test_different_signatures_are_never_merged(scheduler) -> None:
    bench = Bench(scheduler, max_batch_size=2, timeout=30)
    one = bench.submit(1)
    other = bench.submit(2, signature="other")
    assert not one.done()
    assert not other.done()
    bench.submit(3).result(TIMEOUT)
    assert one.result(TIMEOUT)["y"].tolist() == [[2]]
    assert bench.sizes() == [2]
    bench.submit(4, signature="other")
    assert other.result(TIMEOUT)["y"].tolist() == [[4]]


def test_another_shape_does_not_make_its_batch_mates_fail(scheduler) -> None:
    bench = Bench(scheduler, max_batch_size=8, timeout=0.05)
    shapes = [(1, 2), (1, 3), (2, 3), (1, 2)]
    found = [bench.submit_array(np.ones(shape, np.float32), wait=False) for shape in shapes]
    assert [future.result(TIMEOUT)["y"].shape for future in found] == shapes


def test_variable_length_inputs_are_padded_when_asked_for(scheduler) -> None:
    bench = Bench(scheduler, max_batch_size=2, timeout=30, pad_variable_length=True)
    first = bench.submit_array(np.ones((1, 2), np.float32))
    bench.submit_array(np.ones((1, 4), np.float32))
    assert first.result(TIMEOUT)["y"].tolist() == [[2, 2, 0, 0]]


def test_a_task_larger_than_a_batch_is_refused(scheduler) -> None:
    bench = Bench(scheduler, max_batch_size=2)
    with pytest.raises(ServingError) as caught:
        bench.submit(1, 2, 3).result(TIMEOUT)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.message == "Task size 3 is larger than maximum input batch size 2"


def test_the_padded_rest_of_a_split_task_is_answered(
    single,
) -> None:
    engine = FakeEngine()
    options = BatchingConfig(max_batch_size=4, allowed_sizes=(1, 4), split=True)
    runner = Runner("m", engine, options, single)
    task = Task({"x": np.array([[1.0], [2.0], [3.0], [4.0]], np.float32)}, Terms())
    queue = Queue(options, owner=runner, key=("serving_default", ("y",)))
    for start, stop, size in [(0, 1, 1), (1, 4, 4)]:
        assert runner.process(Batch(queue, pieces=[Piece(task, start, stop)], size=size))
    assert not task.alive(0.0), "its caller still waits"
    assert task.outputs.result(0)["y"].ravel().tolist() == [2, 4, 6, 8]


def test_a_split_task_whose_parts_do_not_fit_fails_alone() -> None:
    options = BatchingConfig(max_batch_size=2, split=True)
    queue = Queue(options)
    split, other = (Task({"x": np.zeros((rows, 1), np.float32)}, Terms()) for rows in (2, 1))
    Batch(queue, pieces=[Piece(split, 0, 1)], size=1).deliver({"y": np.zeros((1, 1))})
    pieces = [Piece(split, 1, 2), Piece(other, 0, 1)]
    Batch(queue, pieces=pieces, size=2).deliver({"y": np.zeros((2, 3))})
    assert other.outputs.result(0)["y"].shape == (1, 3)
    with pytest.raises(ServingError, match="ValueError"):
        split.outputs.result(0)


def test_a_task_larger_than_a_batch_is_split_when_asked_for(scheduler) -> None:
    bench = Bench(scheduler, max_batch_size=10, max_execution_batch_size=4, split=True)
    values = [float(value) for value in range(10)]
    assert bench.submit(*values).result(TIMEOUT)["y"].ravel().tolist() == [2 * v for v in values]
    assert sorted(bench.sizes()) == [2, 4, 4]
    with pytest.raises(ServingError, match="Task size 11 is larger than maximum input batch size"):
        bench.submit(*values, 10.0).result(TIMEOUT)


def test_a_full_queue_refuses_in_tensorflow_servings_words(single) -> None:
    bench = Bench(single, max_batch_size=1, max_enqueued_batches=2, timeout=0)
    bench.engine.gate.clear()
    found = [bench.hold(1), bench.submit(2), bench.submit(3)]
    with pytest.raises(ServingError) as caught:
        bench.submit(4).result(TIMEOUT)
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert caught.value.message.startswith(
        "The batch scheduling queue to which this task was submitted is full"
    )
    bench.engine.gate.set()
    assert [future.result(TIMEOUT)["y"].item() for future in found] == [2, 4, 6]


def test_rows_in_flight_are_those_that_wait_and_those_that_run(single) -> None:
    metrics = Metrics()
    bench = Bench(single, metrics=metrics, max_batch_size=2, timeout=0)

    def in_flight() -> str:
        page = metrics.page().decode()
        return next(
            x for x in page.splitlines() if x.startswith("featurewire_server_rows_inflight")
        )

    bench.engine.gate.clear()
    found = [bench.hold(1), bench.submit(2, 3)]
    assert in_flight().endswith(" 3")
    bench.engine.gate.set()
    assert [len(future.result(TIMEOUT)["y"]) for future in found] == [1, 2]
    wait_until(lambda: in_flight().endswith(" 0"))


def test_a_cancelled_request_frees_its_place(single) -> None:
    bench = Bench(single, max_batch_size=1, max_enqueued_batches=2, timeout=0)
    bench.engine.gate.clear()
    running = bench.hold(1)
    leaving = bench.submit(2)
    staying = bench.submit(3)
    leaving.cancel()
    wait_until(lambda: len(bench.enqueued()) == 1)
    late = bench.submit(4)
    bench.engine.gate.set()
    assert [f.result(TIMEOUT)["y"].item() for f in (running, staying, late)] == [2, 6, 8]
    assert bench.sizes() == [1, 1, 1]


def test_an_expired_request_frees_its_place(single) -> None:
    bench = Bench(single, max_batch_size=1, max_enqueued_batches=1, timeout=0)
    bench.engine.gate.clear()
    running = bench.hold(1)
    leaving = bench.submit(2, deadline=time.monotonic() + 0.05)
    with pytest.raises(ServingError) as caught:
        leaving.result(TIMEOUT)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    late = bench.submit(3)
    bench.engine.gate.set()
    assert [f.result(TIMEOUT)["y"].item() for f in (running, late)] == [2, 6]


def test_a_failed_batch_fails_whole_and_the_next_is_served(scheduler) -> None:
    bench = Bench(scheduler, max_batch_size=2, timeout=30)
    bench.engine.failure = ServingError(grpc.StatusCode.INVALID_ARGUMENT, "no image")
    for future in [bench.submit(1), bench.submit(2)]:
        with pytest.raises(ServingError, match="no image"):
            future.result(TIMEOUT)
    bench.engine.failure = None
    assert [f.result(TIMEOUT)["y"].item() for f in [bench.submit(1), bench.submit(2)]] == [2, 4]


def test_two_threads_run_two_batches_at_once(scheduler) -> None:
    bench = Bench(scheduler, max_batch_size=1, timeout=0)
    bench.engine.gate.clear()
    found = [bench.submit(1), bench.submit(2), bench.submit(3)]
    wait_until(lambda: bench.engine.running == 2)
    bench.engine.gate.set()
    futures.wait(found, TIMEOUT)
    assert bench.engine.most_running == 2


def test_closing_waits_for_a_batch_whose_callers_have_left(scheduler) -> None:
    bench = Bench(scheduler, max_batch_size=1, timeout=0)
    bench.engine.gate.clear()
    left = bench.submit(1, deadline=time.monotonic() + 0.05)
    with pytest.raises(ServingError):
        left.result(TIMEOUT)
    closing = threading.Thread(target=bench.runner.close)
    closing.start()
    closing.join(0.05)
    assert not bench.engine.closed
    bench.engine.gate.set()
    closing.join(TIMEOUT)
    assert bench.engine.closed


def test_outputs_without_a_row_for_each_input_row_are_refused(scheduler) -> None:
    bench = Bench(scheduler, max_batch_size=2, timeout=0)
    bench.engine.run = lambda *_: {"y": np.float32(1)}
    with pytest.raises(ServingError, match="0th dimension"):
        bench.submit(1).result(TIMEOUT)


def test_scalars_and_unequal_inputs_cannot_be_batched(scheduler) -> None:
    runner = Bench(scheduler).runner
    with pytest.raises(ServingError, match="at least one dimension"):
        run(runner.run(asked("serving_default", x=np.array(1, np.float32)), Terms()))
    with pytest.raises(ServingError, match="equal 0th-dimension size"):
        run(runner.run(asked("serving_default", x=np.zeros(1), z=np.zeros(2)), Terms()))


def test_no_rows_at_all_are_answered(scheduler) -> None:
    bench = Bench(scheduler, max_batch_size=2, allowed_sizes=(1, 2))
    assert bench.submit().result(TIMEOUT)["y"].shape == (0, 1)


def test_rows_of_refused_images_do_not_count_as_computed() -> None:
    features = np.array([[1, 2], [np.nan, np.nan], [3, 4]], np.float32)
    status = np.array([0, 2, 0], np.int32)
    assert refused_rows({"features": features, "status": status}) == 1
    assert refused_rows({"status": status}) == 0


def test_merging_keeps_strings() -> None:
    parts = [{"x": np.array([b"a"], object)}, {"x": np.array([b"b", b""], object)}]
    assert merge(parts, 4)["x"].tolist() == [b"a", b"b", b"", b"a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size { value: 0 }", "max_batch_size must be positive"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be non-negative"),
        (
            "max_batch_size { value: 8 } allowed_batch_sizes: 4",
            "Last entry in allowed_batch_sizes must match max_batch_size",
        ),
        (
            "max_batch_size { value: 4 } allowed_batch_sizes: 4 allowed_batch_sizes: 2",
            "must be positive and increase",
        ),
        (
            "max_batch_size { value: 8 } max_execution_batch_size { value: 4 } "
            "enable_large_batch_splitting { value: true } allowed_batch_sizes: 8",
            "Last entry in allowed_batch_sizes must match max_execution_batch_size",
        ),
        (
            "max_batch_size { value: 4 } max_execution_batch_size { value: 8 } "
            "enable_large_batch_splitting { value: true }",
            "max_execution_batch_size must not be larger than max_batch_size",
        ),
        ("max_execution_batch_size { value: 0 }", "max_execution_batch_size must be positive"),
    ],
)
def test_parameters_that_cannot_be_are_refused(text: str, message: str) -> None:
    with pytest.raises(ServingError, match=message):
        BatchingConfig.from_proto(text_format.Parse(text, BatchingParameters()))


def test_parameters_are_read_in_their_units() -> None:
    text = """
        max_batch_size { value: 64 } batch_timeout_micros { value: 2000 }
        max_enqueued_batches { value: 64 } num_batch_threads { value: 3 }
        allowed_batch_sizes: 8 allowed_batch_sizes: 16
        enable_large_batch_splitting { value: true } max_execution_batch_size { value: 16 }
    """
    found = BatchingConfig.from_proto(text_format.Parse(text, BatchingParameters()))
    assert found == BatchingConfig(
        max_batch_size=64,
        max_execution_batch_size=16,
        timeout=0.002,
        max_enqueued_batches=64,
        threads=3,
        allowed_sizes=(8, 16),
        split=True,
    )


# --- with a real model behind gRPC


def test_different_versions_are_never_merged(tiny_model: Path) -> None:
    both = config(model("tiny", tiny_model, "model_version_policy { all {} }"))
    options = BatchingConfig(max_batch_size=64, timeout=0.05)
    with served(both, batching=options) as stub, futures.ThreadPoolExecutor(16) as pool:
        versions = [1, 2] * 8
        images = [JPEG + bytes([number]) for number in range(16)]
        found = pool.map(lambda v, image: stub.embed(spec(version=v), [image])[0], versions, images)
        for version, image, features in zip(versions, images, found, strict=True):
            np.testing.assert_array_equal(features, expected_vector(image, version=version))


def test_a_version_brings_its_own_batching_parameters(tmp_path: Path) -> None:
    write_tiny_model(tmp_path, 1)
    (tmp_path / "1" / "batching_params.pbtxt").write_text("max_batch_size { value: 2 }")
    common = BatchingConfig(max_batch_size=16)
    three = predict_request(image_bytes=[JPEG] * 3)
    models = config(model("tiny", tmp_path))
    with served(models, batching=common, per_model_batching=True) as stub:
        code, text = code_and_text(lambda: stub.predict(three))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert text == "Task size 3 is larger than maximum input batch size 2"
    with served(models, batching=common) as stub:
        assert stub.embed(images=[JPEG] * 3).shape == (3, 8)


def test_per_model_parameters_do_not_batch_without_a_file(tiny_model) -> None:
    common = BatchingConfig(max_batch_size=2)
    with served(
        config(model("tiny", tiny_model)), batching=common, per_model_batching=True
    ) as stub:
        assert stub.embed(images=[JPEG] * 3).shape == (3, 8)


def test_a_broken_batching_file_fails_its_version_and_says_where(tmp_path: Path) -> None:
    write_tiny_model(tmp_path, 1)
    (tmp_path / "1" / "batching_params.pbtxt").write_text("max_batch_size { value: 2 }\nmax: 3")
    good = write_tiny_model(tmp_path / "good", 1).parent
    common = BatchingConfig()
    with served(config(model("good", good)), batching=common, per_model_batching=True) as stub:
        code, text = code_and_text(
            lambda: stub.reload(config(model("good", good), model("tiny", tmp_path)))
        )
        assert code is grpc.StatusCode.UNKNOWN
        assert "batching_params.pbtxt:2" in text
        assert stub.embed(spec("good")).shape == (1, 8)


def test_a_request_without_a_deadline_is_answered(tiny_model: Path) -> None:
    with served(config(model("tiny", tiny_model)), batching=BatchingConfig()) as stub:
        request = predict_request(image_bytes=[JPEG])
        for timeout in (None, 1e9):
            response = stub.predict(request, timeout=timeout)
            assert response.model_spec.version.value == 2
        call = stub.start(MODEL + "HandleReloadConfigRequest", b"\n\x02\n\x00", None, None)
        assert call.code() is grpc.StatusCode.OK
