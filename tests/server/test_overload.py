"""Deadlines, classes and turns through a real gRPC server."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from featurewire._tfs.predict_pb2 import PredictResponse
from featurewire_server.api import Call
from featurewire_server.batching.config import BatchingConfig
from featurewire_server.batching.estimate import LatencyEstimate
from featurewire_server.batching.runner import BatchScheduler, Runner
from featurewire_server.batching.task import Terms
from featurewire_server.common.admission import Hold
from featurewire_server.common.errors import resource_exhausted
from featurewire_server.common.loop import run
from featurewire_server.messages import tensors
from featurewire_server.messages.predict import Run
from featurewire_server.transport.rest.exchange import Answer, Request, failure
from featurewire_server.transport.rest.handler import Handler
from tests.server.support import (
    PREDICTION,
    TIMEOUT,
    FakeEngine,
    config,
    model,
    predict_request,
    served,
    spec,
    stub_for,
)
from tests.support.waiting import wait_until

PREDICT = PREDICTION + "Predict"
BULK = (("featurewire-class", "bulk"),)


class Server:
    """A fake engine with a schedule and gRPC; `seconds` is the measured time of a batch."""

    def __init__(self, base_path: Path, options: BatchingConfig | None, seconds: float) -> None:
        (base_path / "1").mkdir()
        self.engine = FakeEngine()
        self.runner = Runner(
            "m", self.engine, options, BatchScheduler(1 if options else 0, unbatched=1)
        )
        queue = self.runner._queue(("serving_default", ("y",)))
        now = time.monotonic()
        for _ in range(4):  # the first one is ignored
            queue.estimate.observe(1, seconds, now)
            self.runner._scheduler.schedule._ended_at.append(now)  # these count at any age
        self.queue = queue
        self._served = served(config(model("m", base_path)), load=lambda *_: self.runner)
        self.stub = self._served.__enter__()

    def start(self, value: float = 1.0, *, rows: int = 1, timeout=TIMEOUT, metadata=()):
        request = predict_request(spec("m"), x=np.full((rows, 1), value, np.float32))
        return self.stub.start(PREDICT, request, timeout=timeout, metadata=metadata)

    def hold(self) -> None:
        """Let a batch run until the gate opens."""
        self.engine.gate.clear()
        self.held = self.start(0.0, timeout=None)
        wait_until(lambda: self.engine.running)

    def waiting(self) -> int:
        return sum(len(line.tasks) for line in self.queue.lines.values())

    def close(self) -> None:
        self.engine.gate.set()
        self._served.__exit__(None, None, None)


@pytest.fixture(params=["batching", "no batching"])
def serve(request, tmp_path):
    made = []

    def serve(seconds: float = 0.01) -> Server:
        options = (
            BatchingConfig(max_batch_size=1, max_enqueued_batches=99)
            if request.param == "batching"
            else None
        )
        made.append(Server(tmp_path, options, seconds))
        return made[-1]

    yield serve
    for server in made:
        server.close()


def test_a_call_that_comes_too_late_is_refused_at_once(serve) -> None:
    server = serve(seconds=1000.0)
    server.hold()
    refused = server.start(timeout=TIMEOUT)
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "deadline" in refused.details()
    trailers = dict(refused.trailing_metadata())
    assert int(trailers["grpc-retry-pushback-ms"]) > 1000 * TIMEOUT
    assert trailers["featurewire-overload"] == "time"
    patient = server.start(2.0, timeout=None)
    wait_until(lambda: server.waiting() == 1)
    server.engine.gate.set()
    assert patient.code() is grpc.StatusCode.OK
    assert len(server.engine.calls) == 2


def test_bursts_are_answered_after_a_batch_was_held_up(serve) -> None:
    server = serve(seconds=10.0)

    def burst() -> set[grpc.StatusCode]:
        return {call.code() for call in [server.start(timeout=5.0) for _ in range(20)]}

    wait_until(lambda: burst() == {grpc.StatusCode.OK}, timeout=5.0)


def test_a_call_like_the_last_one_is_refused_unread(serve) -> None:
    server = serve(seconds=1000.0)
    server.hold()
    assert server.start().code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    unread = [server.stub.start(PREDICT, b"no message").code() for _ in range(8)]
    assert unread.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 7
    assert unread.count(grpc.StatusCode.INVALID_ARGUMENT) == 1  # one in eight is read
    patient = server.start(2.0, timeout=None)
    wait_until(lambda: server.waiting() == 1)
    server.engine.gate.set()
    assert patient.code() is grpc.StatusCode.OK


def test_rest_refuses_what_comes_too_late_before_parsing(serve) -> None:
    server = serve(seconds=1000.0)
    handler = Handler(server.stub.api, max_body_bytes=1 << 20)

    def answer(body: bytes) -> Answer:
        return asyncio.run(handler(rest_request(body, server.stub.api.admission.hold())))

    assert answer(b"[").status == 400  # it is idle: the body is read
    server.hold()
    refused = answer(b"[")
    assert (refused.status, b"deadline" in refused.body) == (429, True)
    assert int(dict(refused.headers)["Retry-After"]) > TIMEOUT
    assert answer(b'{"signature_name": "other", [').status == 400


def rest_request(body: bytes, held: Hold) -> Request:
    return Request(
        method="POST",
        path="/v1/models/m:predict",
        encoding="",
        body=body,
        call=Call(held=held, terms=Terms(deadline=time.monotonic() + TIMEOUT)),
    )


def test_what_waits_too_long_is_dropped_and_never_computed(serve) -> None:
    server = serve()
    server.hold()
    late = server.start(5.0, timeout=1.0)
    wait_until(lambda: server.waiting() == 1)
    assert late.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)
    wait_until(lambda: server.waiting() == 0)
    server.engine.gate.set()
    assert server.start(6.0).code() is grpc.StatusCode.OK
    assert [array.item() for _, array in server.engine.calls] == [0.0, 6.0]


def test_a_caller_who_leaves_is_forgotten_at_once(serve) -> None:
    server = serve()
    server.hold()
    leaving = [server.start(timeout=None) for _ in range(8)]
    wait_until(lambda: server.waiting() == 8)
    for call in leaving:
        call.cancel()
    wait_until(lambda: server.waiting() == 0)


def test_interactive_calls_go_before_bulk(serve) -> None:
    server = serve()
    server.hold()
    calls = []
    for value in (1.0, 2.0):
        calls.append(server.start(value, timeout=None, metadata=BULK))
        wait_until(lambda: server.waiting() == len(calls))
    calls.append(server.start(3.0, timeout=None))
    wait_until(lambda: server.waiting() == 3)
    server.engine.gate.set()
    assert {call.code() for call in calls} == {grpc.StatusCode.OK}
    assert [array.item() for _, array in server.engine.calls] == [0.0, 3.0, 1.0, 2.0]


def test_one_connection_does_not_wait_for_all_calls_of_another(serve) -> None:
    server = serve()
    server.hold()
    first = [server.start(1.0, timeout=None) for _ in range(20)]
    wait_until(lambda: server.waiting() == 20)
    with stub_for(f"127.0.0.1:{server.stub.port}") as another:
        request = predict_request(spec("m"), x=np.full((1, 1), 2.0, np.float32))
        second = another.start(PREDICT, request)
        wait_until(lambda: server.waiting() == 21)
        server.engine.gate.set()
        assert second.code() is grpc.StatusCode.OK
    assert {call.code() for call in first} == {grpc.StatusCode.OK}
    assert [array.item() for _, array in server.engine.calls].index(2.0) <= 2


def test_a_large_bulk_request_runs_in_parts_and_returns_whole(tmp_path) -> None:
    server = Server(tmp_path, BatchingConfig(max_batch_size=16), 0.01)
    server.queue.estimate = LatencyEstimate()  # nothing measured: few rows at once
    assert server.start(1.0).code() is grpc.StatusCode.OK
    call = server.start(2.0, rows=10, metadata=BULK)
    response = PredictResponse.FromString(call.result())
    assert tensors.decode("y", response.outputs["y"]).ravel().tolist() == [4.0] * 10
    sizes = [len(array) for _, array in server.engine.calls]
    assert sum(sizes) == 11
    assert len(sizes) > 2
    server.close()


def test_the_order_of_outputs_makes_no_queue_of_its_own() -> None:
    engine, seen = FakeEngine(), []

    def answer(_signature_name, inputs, outputs, _patience=None):
        seen.append(tuple(outputs))
        return dict.fromkeys(outputs, inputs["x"])

    engine.run = answer
    runner = Runner("m", engine, BatchingConfig(max_batch_size=4), BatchScheduler(1))
    names = ["a", "b", "c"]
    for order in itertools.permutations(names):
        inputs = {"x": np.ones((1, 1))}
        asked = Run(signature_name="serving_default", inputs=inputs, outputs=order, examples=1)
        values = run(runner.run(asked, Terms()))
        assert sorted(values) == names
    assert set(seen) == {tuple(names)}
    assert len(runner.queues) == 1


def test_rest_says_when_to_come_back() -> None:
    answer = failure(resource_exhausted("too many", retry_after=1.2))
    assert answer.status == 429
    assert dict(answer.headers)["Retry-After"] == "2"
