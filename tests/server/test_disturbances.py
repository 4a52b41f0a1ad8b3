"""A real server answers again soon after a disturbance, whatever it measured in the meantime."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.server.support import JPEG, PREDICTION, predict_request, spec, stub_for
from tests.support.process import ServerProcess, free_port, serving
from tests.support.waiting import wait_until

JPEG_TEXT = base64.b64encode(JPEG).decode()
OK = grpc.StatusCode.OK
BATCHING = {"batching": "--enable_batching=true", "no batching": "--enable_batching=false"}


@pytest.fixture(params=BATCHING)
def batching(request) -> str:
    return BATCHING[request.param]


def burst(server: ServerProcess, *, timeout: float) -> Counter[grpc.StatusCode]:
    """The codes of 20 calls that are sent at once."""
    request = predict_request(spec(), image_bytes=[JPEG])
    with stub_for(server.target) as stub:
        started = [stub.start(PREDICTION + "Predict", request, timeout=timeout) for _ in range(20)]
        return Counter(call.code() for call in started)


@pytest.mark.slow
def test_bursts_are_answered_after_a_pause(tiny_model: Path, tmp_path: Path, batching) -> None:
    with serving(tiny_model, batching, log=tmp_path / "log") as server:
        wait_until(lambda: burst(server, timeout=60.0) == {OK: 20})
        request = predict_request(spec(), image_bytes=[JPEG])
        with stub_for(server.target) as stub:
            held_up = [stub.start(PREDICTION + "Predict", request, timeout=60.0) for _ in range(20)]
            os.kill(server.pid, signal.SIGSTOP)
            time.sleep(10.0)  # what is tested is a pause of this length
            os.kill(server.pid, signal.SIGCONT)
            assert Counter(call.code() for call in held_up) == {OK: 20}
        wait_until(lambda: burst(server, timeout=5.0) == {OK: 20})


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Processes that compute all the time, because noise made the estimate drift."""
    processes = [
        multiprocessing.get_context("spawn").Process(target=compute, daemon=True)
        for _ in range(count)
    ]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def compute() -> None:
    while True:
        sum(range(10_000))


@pytest.mark.slow
def test_another_size_is_answered_after_long_traffic(
    tiny_model: Path, tmp_path: Path, batching
) -> None:
    rest_port = free_port()
    flags = (batching, f"--rest_api_port={rest_port}")
    with (
        serving(tiny_model, *flags, log=tmp_path / "log"),
        busy_processes(2),
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", rest_port)) as connection,
    ):

        def statuses(rows: int, calls: int) -> Counter[int]:
            found: Counter[int] = Counter()
            for _ in range(calls):
                body = json.dumps({"instances": rows * [{"b64": JPEG_TEXT}]})
                connection.request("POST", "/v1/models/tiny:predict", body=body)
                response = connection.getresponse()
                response.read()
                found[response.status] += 1
            return found

        for rows, calls in ((2, 3), (1, 3), (1, 4000), (2, 20), (1, 20)):
            assert statuses(rows, calls) == {200: calls}
