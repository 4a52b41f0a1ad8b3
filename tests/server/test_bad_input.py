"""Every bad input gets the right code, and the next request is answered."""

from __future__ import annotations

import resource
import socket
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurewire._tfs.model_management_pb2 import ReloadConfigRequest
from featurewire._tfs.model_pb2 import ModelSpec
from featurewire._tfs.predict_pb2 import PredictRequest
from featurewire._tfs.tensor_pb2 import TensorProto
from featurewire_server.common import admission
from featurewire_server.common.errors import ServingError
from tests.server.support import (
    JPEG,
    MODEL,
    PREDICTION,
    TIMEOUT,
    FakeEngine,
    Stub,
    code_and_text,
    config,
    direct,
    model,
    predict_request,
    served,
    spec,
    stub_for,
)
from tests.server.test_tensors import LIARS
from tests.support.models import expected_vector
from tests.support.process import ServerProcess, serving
from tests.support.waiting import wait_until

Code = grpc.StatusCode
CALLERS_FAULT = {Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.FAILED_PRECONDITION}
METHODS = [
    PREDICTION + "Predict",
    PREDICTION + "Classify",
    PREDICTION + "Regress",
    PREDICTION + "MultiInference",
    PREDICTION + "GetModelMetadata",
    MODEL + "GetModelStatus",
]


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory) -> Iterator[ServerProcess]:
    """A real process, because these tests attack a process."""
    log = tmp_path_factory.mktemp("attacked") / "log"
    with serving(tiny_model, "--enable_batching", "--max_inflight_bytes=50000000", log=log) as made:
        yield made


@pytest.fixture(scope="module")
def stub(server: ServerProcess) -> Iterator[Stub]:
    with stub_for(server.target) as made:
        yield made


@pytest.fixture(autouse=True)
def still_serves(request) -> Iterator[None]:
    """Check after every test with the process that it answers a good request."""
    yield
    if "server" in request.fixturenames:
        with stub_for(request.getfixturevalue("server").target) as made:
            np.testing.assert_array_equal(made.embed()[0], expected_vector(JPEG, version=2))


def code_of(stub: Stub, path: str, request) -> grpc.StatusCode:
    """The code of a call: OK, or the error's."""
    call = stub.start(path, request, None)
    return call.code()


FUZZ = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.parametrize("method", METHODS)
@FUZZ
@given(garbage=st.binary(min_size=1, max_size=200))
def test_garbage_instead_of_a_message_is_the_callers_fault(stub, method, garbage) -> None:
    assert code_of(stub, method, garbage) in CALLERS_FAULT


def test_a_malformed_message_is_invalid_and_named(stub) -> None:
    call = stub.start(PREDICTION + "Predict", b"\xff\xff\xff\xff", None)
    assert call.code() is Code.INVALID_ARGUMENT
    assert call.details() == "The request is not a tensorflow.serving.PredictRequest"


@pytest.mark.parametrize(
    "lie",
    ["a huge shape and one value", "content too short", "a value out of range", "no type"],
)
def test_a_lying_tensor_is_invalid(stub, lie: str) -> None:
    request = predict_request()
    request.inputs["image_bytes"].CopyFrom(LIARS[lie])
    code, text = code_and_text(lambda: stub.predict(request))
    assert code is Code.INVALID_ARGUMENT
    assert text.startswith("tensor parsing error: image_bytes: ")


names = st.sampled_from(["tiny", "image_bytes", "features", "manifest", "serving_default", "", "é"])
tensor_protos = st.builds(
    lambda dtype, sizes, strings, floats: TensorProto(
        dtype=dtype,
        tensor_shape={"dim": [{"size": size} for size in sizes]},
        string_val=strings,
        float_val=floats,
    ),
    st.sampled_from([0, 1, 7, 7, 7, 20, 107]),
    st.lists(st.integers(-1, 3) | st.sampled_from([1 << 62, -(1 << 63)]), max_size=3),
    st.lists(st.binary(max_size=8), max_size=3),
    st.lists(st.floats(width=32), max_size=3),
)


def model_specs() -> st.SearchStrategy[ModelSpec]:
    return st.builds(
        lambda name, version, label, signature: spec(name, version, label, signature),
        names,
        st.none() | st.integers(-1, 3) | st.sampled_from([(1 << 63) - 1]),
        st.sampled_from(["", "", "stable"]),
        names,
    )


@FUZZ
@given(
    model_spec=st.none() | model_specs(),
    inputs=st.dictionaries(names, tensor_protos, max_size=3),
    output_filter=st.lists(names, max_size=2),
)
def test_any_predict_request_is_answered_or_refused(
    stub, model_spec, inputs, output_filter
) -> None:
    request = PredictRequest(inputs=inputs, output_filter=output_filter)
    if model_spec is not None:
        request.model_spec.CopyFrom(model_spec)
    code = code_of(stub, PREDICTION + "Predict", request)
    assert code is Code.OK or code in CALLERS_FAULT


def resident(server: ServerProcess) -> int:
    """Peak memory of the server in bytes."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


@pytest.mark.slow
def test_a_request_of_a_gigabyte_is_refused_without_taking_it_in(stub, server) -> None:
    before = resident(server)
    code = code_of(stub, PREDICTION + "Predict", bytes(1_000_000_000))
    assert code is Code.RESOURCE_EXHAUSTED
    assert resident(server) - before < 100_000_000


def test_a_thousand_silent_connections_do_not_keep_others_out(server) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    idle = []
    try:
        for number in range(1000):
            idle.append(socket.create_connection(("127.0.0.1", server.port), TIMEOUT))
            if number % 2:
                idle[-1].sendall(b"PRI * HTTP/2.0\r\n")  # an incomplete preface
        with stub_for(server.target) as made:
            assert made.embed().shape == (1, 8)
    finally:
        for connection in idle:
            connection.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(range(256)) * 4,
        bytes(100_000),
    ],
    ids=["HTTP/1.1", "TLS", "broken HTTP/2", "zeros"],
)
def test_garbage_on_the_port_ends_that_connection_only(server, garbage: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as connection:
        try:
            connection.sendall(garbage)
            while connection.recv(4096):
                pass
        except ConnectionResetError:
            pass
    with stub_for(server.target) as stub:
        assert stub.embed().shape == (1, 8)


def test_calls_that_are_reset_at_once_are_refused_in_the_end(server) -> None:
    """HTTP/2 rapid reset: the limit on a connection's calls includes reset calls."""
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": (PREDICTION + "Predict").encode(),
        b":authority": b"x",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
    }
    header = b"".join(
        b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value
        for name, value in fields.items()
    )

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        length = len(payload).to_bytes(3, "big")
        return length + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

    cancel, refused = (8).to_bytes(4, "big"), (7).to_bytes(4, "big")
    resets = b"".join(
        frame(1, 4, stream, header) + frame(3, 0, stream, cancel) for stream in range(1, 20_000, 2)
    )
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as connection:
        connection.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(4, 1, 0, b"")
        )
        sending = threading.Thread(target=lambda: connection.sendall(resets), daemon=True)
        sending.start()
        with stub_for(server.target) as other:
            assert other.embed().shape == (1, 8)
        answer = b""
        while frame(3, 0, 0, refused)[:5] not in answer or refused not in answer:
            answer += (more := connection.recv(65536))
            assert more, "the connection was closed before a call was refused"
    sending.join(TIMEOUT)


def test_callers_who_leave_in_the_middle_leave_nothing_behind(server) -> None:
    request = predict_request(image_bytes=[JPEG + bytes(100_000)] * 4)
    with stub_for(server.target) as made:
        calls = [made.start(PREDICTION + "Predict", request, None) for _ in range(100)]
        for call in calls:
            call.cancel()
    with stub_for(server.target) as made, futures.ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda _: made.embed().shape == (1, 8), range(32)))


def test_many_callers_at_once_are_all_answered(server) -> None:
    def one(number: int) -> bool:
        image = JPEG + number.to_bytes(2, "big")
        with stub_for(server.target) as made:
            return np.array_equal(made.embed(images=[image])[0], expected_vector(image, version=2))

    with futures.ThreadPoolExecutor(40) as pool:
        assert all(pool.map(one, range(200)))


def test_bytes_in_flight_are_bounded_and_the_excess_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    engine = FakeEngine()
    engine.gate.clear()
    request = predict_request(spec("m"), x=np.zeros((1, 250_000), np.float32))
    with served(
        config(model("m", tmp_path)), load=lambda *_: direct(engine), limit=1_500_000
    ) as made:
        first = made.start(PREDICTION + "Predict", request, None)
        wait_until(lambda: engine.running == 1)
        second = made.start(PREDICTION + "Predict", request, None)
        assert second.code() is Code.RESOURCE_EXHAUSTED
        assert "--max_inflight_bytes" in second.details()
        engine.gate.set()
        assert first.code() is Code.OK
        assert made.start(PREDICTION + "Predict", request, None).code() is Code.OK
        wait_until(lambda: made.api.admission.held == 0)


def test_status_is_answered_while_reloads_wait_for_their_models(tmp_path: Path) -> None:
    loading = threading.Event()

    def load(name, _version, _path):
        assert name == "m" or loading.wait(TIMEOUT)
        return direct(FakeEngine())

    for name in ("m", "n"):
        (tmp_path / name / "1").mkdir(parents=True)
    first = model("m", tmp_path / "m")
    with served(config(first), load=load) as made:
        request = ReloadConfigRequest(config=config(first, model("n", tmp_path / "n")))
        reload = MODEL + "HandleReloadConfigRequest"
        waiting = [made.start(reload, request, None) for _ in range(4)]
        wait_until(lambda: made.manager.statuses(spec("m")))
        assert made.states("m") == {1: "AVAILABLE"}
        loading.set()
        assert [call.code() for call in waiting] == [Code.OK] * 4


def test_what_admission_refuses_changes_nothing() -> None:
    gate = admission.Admission(10)
    first, second = gate.hold(), gate.hold()
    first.resize(10)
    with pytest.raises(ServingError):
        second.resize(1)
    assert (gate.held, second.size) == (10, 0)
    first.resize(0)
    assert gate.held == 0


def test_admission_never_holds_more_than_its_limit() -> None:
    gate = admission.Admission(5)
    seen = []
    end = time.monotonic() + 0.3

    def work() -> None:
        hold = gate.hold()
        while time.monotonic() < end:
            try:
                hold.resize(2)
            except ServingError:
                continue
            seen.append(gate.held)
            hold.resize(0)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(seen) <= 4
    assert gate.held == 0
