"""Work ends when all of its callers have gone, however long it would have taken."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf

from featurewire_server.batching.config import BatchingConfig
from featurewire_server.batching.runner import BatchScheduler, Runner
from featurewire_server.batching.task import Terms
from featurewire_server.common import loop
from featurewire_server.common.errors import ServingError
from featurewire_server.engines.engine import EngineConfig, Patience, endless
from featurewire_server.engines.tensorflow import TensorFlowEngine
from featurewire_server.messages.predict import Run
from tests.server.support import (
    FakeEngine,
    code_and_text,
    config,
    model,
    predict_request,
    served,
    spec,
)
from tests.support.waiting import wait_until

FOREVER, ONCE = np.array([[0.0]], np.float32), np.array([[1.0]], np.float32)


@pytest.fixture(scope="module")
def endless_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adds its input to a sum until that reaches 1; with input 0 it never ends."""

    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, name="x")])
        def sum(self, x):
            add = tf.while_loop(
                lambda total: tf.reduce_sum(total) < 1, lambda total: (total + x,), (x,)
            )
            return {"y": add[0]}

    base = tmp_path_factory.mktemp("endless")
    made = Model()
    tf.saved_model.save(made, str(base / "1"), signatures={"serving_default": made.sum})
    return base


def test_a_run_ends_soon_after_its_callers_patience(endless_model: Path) -> None:
    engine = TensorFlowEngine(endless_model / "1", EngineConfig())
    with pytest.raises(ServingError) as raised:
        engine.run("serving_default", {"x": FOREVER}, ["y"], lambda: 0.2)
    assert raised.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    with pytest.raises(ServingError) as raised:
        engine.run("serving_default", {"x": ONCE}, ["y"], lambda: 0.0)
    assert raised.value.code is grpc.StatusCode.CANCELLED
    for patience in (lambda: 60.0, lambda: math.inf):
        found = engine.run("serving_default", {"x": ONCE}, ["y"], patience)
        assert found["y"].tolist() == [[1.0]]
    engine.close()


@pytest.mark.parametrize("batching", [None, BatchingConfig(max_batch_size=1, threads=2)])
def test_endless_work_leaves_the_server_free_for_others(
    endless_model: Path, batching: BatchingConfig | None
) -> None:
    with served(config(model("m", endless_model)), batching=batching) as stub:
        threads = 20 if batching is None else 4  # more than the threads that run batches

        def endless() -> None:
            code_and_text(lambda: stub.predict(predict_request(spec("m"), x=FOREVER), timeout=1.0))

        callers = [threading.Thread(target=endless) for _ in range(threads)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        found = stub.predict(predict_request(spec("m"), x=ONCE), timeout=60.0)
        assert found.outputs["y"].float_val[:] == [1.0]


def test_the_engine_hears_how_long_the_callers_wait() -> None:
    engine = FakeEngine()
    heard: list[Patience] = []
    inner = engine.run

    def run(signature_name, inputs, outputs, patience=endless):
        heard.append(patience)
        return inner(signature_name, inputs, outputs)

    engine.run = run
    engine.gate.clear()
    scheduler = BatchScheduler(1)
    runner = Runner("m", engine, BatchingConfig(max_batch_size=1), scheduler)
    asked = Run(
        signature_name="serving_default", inputs={"x": np.ones((1, 1))}, outputs=["y"], examples=1
    )
    now = time.monotonic()
    answers = [_started(runner, asked, Terms(deadline=deadline)) for deadline in (now + 60, None)]
    wait_until(lambda: heard)
    assert 0 < heard[0]() <= 60
    answers[0].cancel()
    wait_until(lambda: heard[0]() == 0)
    engine.gate.set()
    wait_until(lambda: len(heard) == 2)
    assert heard[1]() in (math.inf, 0)
    answers[1].result(20)
    runner.close()


def _started(runner: Runner, run: Run, terms: Terms) -> Future:
    """The runner's coroutine, on the server's event loop."""
    return asyncio.run_coroutine_threadsafe(runner.run(run, terms), loop.event_loop())
