"""Calls that wait or never send their message must not block others."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from featurewire_server.transport import grpc_extras, grpc_limits, grpc_server
from tests.server.slow_line import slow_line
from tests.server.support import (
    MODEL,
    PREDICTION,
    TIMEOUT,
    FakeEngine,
    Stub,
    config,
    direct,
    model,
    predict_request,
    served,
    spec,
    stub_for,
)
from tests.support.waiting import wait_until

Code = grpc.StatusCode
STATUS, PREDICT = MODEL + "GetModelStatus", PREDICTION + "Predict"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECT = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
ASKED = HealthCheckRequest().SerializeToString()


@pytest.fixture
def base_path(tmp_path: Path) -> Path:
    (tmp_path / "1").mkdir()
    return tmp_path


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def serve(base_path, engine):
    def serve(**options):
        load = lambda *_: direct(engine)  # noqa: E731
        return served(config(model("m", base_path)), load=load, **options)

    return serve


def request(size: int = 4):
    return predict_request(spec("m"), x=np.zeros((1, size // 4), np.float32))


class HalfOpen:
    """Calls that send only their headers until the end of the block."""

    def __init__(self, made: Stub) -> None:
        self._made = made
        self.calls: list = []

    def open(self, path: str, count: int) -> None:
        self.calls += [self._made.open(path) for _ in range(count)]

    def __enter__(self) -> HalfOpen:
        return self

    def __exit__(self, *_: object) -> None:
        for call in self.calls:
            call.cancel()


@pytest.fixture
def no_call_ends_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server waits for messages as long as a test needs on a busy machine."""
    monkeypatch.setattr(grpc_server, "CONTROL_BODY_SECONDS", 600.0)
    monkeypatch.setattr(grpc_extras, "CHECK_SECONDS", 600.0)


def healthy(made: Stub) -> bool:
    return made.call(CHECK, HealthCheckRequest(), HealthCheckResponse).status == 1


def told(watch) -> int:
    """The next status in a watch of the health service."""
    return HealthCheckResponse.FromString(watch.next()).status


def test_calls_without_a_message_hold_up_nobody(serve) -> None:
    with serve(grpc_config={"max_threads": 2, "health": True}) as made, HalfOpen(made) as half:
        for path in (STATUS, PREDICT, MODEL + "HandleReloadConfigRequest", REFLECT):
            half.open(path, 8)
        assert made.states("m") == {1: "AVAILABLE"}
        assert made.start(PREDICT, request(), None).code() is Code.OK
        assert healthy(made)
        made.reload(config(model("m", made.manager.use(spec("m")).__enter__().path.parent)))


def test_a_message_that_does_not_come_ends_its_call(serve, monkeypatch) -> None:
    monkeypatch.setattr(grpc_server, "BODY_SECONDS", 0.3)
    with serve() as made, HalfOpen(made) as half:
        half.open(PREDICT, 3)
        wait_until(lambda: all(call.done() for call in half.calls))
        assert {call.code() for call in half.calls} == {Code.CANCELLED}
        assert made.start(PREDICT, request(), None).code() is Code.OK


@pytest.mark.usefixtures("no_call_ends_by_the_clock")
@pytest.mark.parametrize("path", [STATUS, PREDICT, CHECK, WATCH])
def test_a_crowd_of_calls_without_a_message_holds_up_nobody(serve, path, monkeypatch) -> None:
    monkeypatch.setattr(grpc_limits, "PATIENCE_SECONDS", 0.3)
    with serve(grpc_config={"max_threads": 2, "health": True}) as made, HalfOpen(made) as half:
        half.open(path, 100)
        assert made.start(PREDICT, request(), None).code() is Code.OK
        assert made.states("m") == {1: "AVAILABLE"}
        assert healthy(made)
        assert not any(call.done() for call in half.calls)


@pytest.mark.parametrize(("path", "limit"), [(PREDICT, "WORK_CALLS"), (STATUS, "CONTROL_CALLS")])
def test_no_host_takes_all_the_places(serve, path, limit, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(grpc_server, limit, 8)
    socket = tmp_path / "socket"
    with serve(grpc_config={"socket_path": str(socket)}) as made, HalfOpen(made) as half:
        half.open(path, 12)
        wait_until(lambda: sum(call.done() for call in half.calls) == 8)
        refused = [call for call in half.calls if call.done()]
        assert {call.code() for call in refused} == {Code.RESOURCE_EXHAUSTED}
        assert "this host has 4 calls" in refused[0].details()
        with stub_for(f"unix:{socket}") as other:
            assert other.predict(request()).outputs["y"].float_val
            assert other.states("m") == {1: "AVAILABLE"}


def test_health_and_reflection_do_not_wait_for_ever_either(serve, monkeypatch) -> None:
    monkeypatch.setattr(grpc_extras, "CHECK_SECONDS", 0.3)
    monkeypatch.setattr(grpc_extras, "REFLECTION_SECONDS", 0.3)
    with serve(grpc_config={"health": True}) as made, HalfOpen(made) as half:
        half.open(CHECK, 2)
        half.open(WATCH, 2)
        half.open(REFLECT, 1)
        wait_until(lambda: all(call.done() for call in half.calls))
        assert {call.code() for call in half.calls} == {Code.CANCELLED}


def test_watchers_do_not_take_the_places_of_those_who_check(serve, monkeypatch) -> None:
    monkeypatch.setattr(grpc_extras, "WATCHES", 3)
    with serve(grpc_config={"health": True}) as made:
        watches = [made.open(WATCH, ASKED) for _ in range(3)]
        assert [told(watch) for watch in watches] == [1, 1, 1]
        with pytest.raises(grpc.RpcError) as caught:
            told(made.open(WATCH, ASKED))
        assert caught.value.code() is Code.RESOURCE_EXHAUSTED
        assert healthy(made)
        watches.pop().cancel()

        def has_a_place() -> bool:
            watches.append(made.open(WATCH, ASKED))
            try:
                return told(watches[-1]) == 1
            except grpc.RpcError:
                return False

        wait_until(has_a_place)
        for watch in watches:
            watch.cancel()


def test_watchers_who_leave_do_not_bring_the_server_to_a_stand(serve) -> None:
    with serve(grpc_config={"health": True}) as made:
        watches = []
        for number in range(300):  # some end while others start
            watches.append(made.open(WATCH, ASKED))
            if number % 3:
                watches.pop(0).cancel()
        assert healthy(made)
        for watch in watches:
            watch.cancel()
        made.server.stop(5)


def test_a_call_that_ends_without_a_message_is_refused(serve) -> None:
    with serve() as made:
        call = made.open(PREDICT, ends=True)
        assert call.code() is Code.INVALID_ARGUMENT
        assert "without a request" in call.details()


def test_more_calls_than_may_wait_are_refused(serve, engine, monkeypatch) -> None:
    monkeypatch.setattr(grpc_server, "WORK_CALLS", 4)
    engine.gate.clear()
    with serve(grpc_config={"max_threads": 1}) as made:
        waiting = [made.start(PREDICT, request(), None) for _ in range(2)]
        wait_until(lambda: made.server.open_calls == 2)
        refused = made.start(PREDICT, request(), None)
        assert refused.code() is Code.RESOURCE_EXHAUSTED
        assert made.states("m") == {1: "AVAILABLE"}
        engine.gate.set()
        assert {call.code() for call in waiting} == {Code.OK}


def test_small_requests_that_wait_are_counted(serve, engine) -> None:
    engine.gate.clear()
    with serve(grpc_config={"max_threads": 1}, limit=1_000_000) as made:
        calls = [made.start(PREDICT, request(60_000), None) for _ in range(40)]
        wait_until(lambda: sum(call.done() for call in calls) >= 40 - 17)
        assert made.api.admission.held <= 1_000_000
        engine.gate.set()
        codes = [call.code() for call in calls]
        assert set(codes) == {Code.OK, Code.RESOURCE_EXHAUSTED}
        assert 1 <= codes.count(Code.OK) <= 17
        wait_until(lambda: made.api.admission.held == 0)


def test_a_cancelled_or_late_waiting_call_gives_back_its_bytes(serve, engine) -> None:
    engine.gate.clear()
    with serve(grpc_config={"max_threads": 1}) as made:
        first = made.start(PREDICT, request(), None)
        wait_until(lambda: engine.running == 1)
        alone = made.api.admission.held
        cancelled = made.start(PREDICT, request(50_000), None)
        late = made.start(PREDICT, request(50_000), None, timeout=1.0)
        wait_until(lambda: made.api.admission.held > alone + 100_000)
        cancelled.cancel()
        assert late.code() is Code.DEADLINE_EXCEEDED
        wait_until(lambda: made.api.admission.held == alone)
        engine.gate.set()
        assert first.code() is Code.OK
        assert len(engine.calls) == 1


def test_open_health_and_reflection_streams_do_not_hold_up_the_stop(serve, engine) -> None:
    engine.gate.clear()
    with serve(grpc_config={"health": True}) as made:
        assert told(made.open(WATCH, ASKED)) == 1
        half = HalfOpen(made)
        half.open(REFLECT, 1)
        working = made.start(PREDICT, request(), None)
        wait_until(lambda: engine.running == 1)
        threading.Timer(0.5, engine.gate.set).start()
        began = time.monotonic()
        made.server.stop(60)
        assert time.monotonic() - began < 30  # well below the grace of a minute
        assert working.code() is Code.OK
        half.__exit__()


def test_a_call_without_a_message_does_not_hold_up_the_stop(serve, monkeypatch) -> None:
    monkeypatch.setattr(grpc_limits, "PATIENCE_SECONDS", 0.3)
    with serve() as made, HalfOpen(made) as half:
        half.open(PREDICT, 2)
        half.open(STATUS, 2)
        wait_until(lambda: made.server.open_calls == 4)
        began = time.monotonic()
        made.server.stop(60)
        assert time.monotonic() - began < 30  # well below the grace of a minute


def test_an_answer_that_is_on_its_way_is_not_cut_off_by_the_stop(serve, engine) -> None:
    engine.gate.clear()
    with serve() as made, slow_line(made.port) as line, stub_for(f"127.0.0.1:{line.port}") as slow:
        # More than fits into the buffers of the sockets.
        call = slow.start(PREDICT, request(24_000_000), None, timeout=60)
        wait_until(lambda: engine.running)
        line.open.clear()
        engine.gate.set()
        wait_until(lambda: not engine.running)
        stopping = threading.Thread(target=made.server.stop, args=(60,))
        stopping.start()
        stopping.join(0.3)
        assert stopping.is_alive()
        assert made.api.admission.held >= 24_000_000  # until the answer has been sent
        line.open.set()
        assert call.code() is Code.OK
        stopping.join(TIMEOUT)
        assert not stopping.is_alive()


def test_what_admission_refuses_is_counted(serve, engine) -> None:
    seen = []
    engine.gate.clear()
    with serve(limit=1_000_000) as made:
        made.api.metrics.observe_request = lambda **labels: seen.append(labels)
        first = made.start(PREDICT, request(400_000), None)
        wait_until(lambda: engine.running == 1)
        # The first request takes half of the limit, and its answer most of the rest.
        assert made.start(PREDICT, request(700_000), None).code() is Code.RESOURCE_EXHAUSTED
        engine.gate.set()
        assert first.code() is Code.OK
    assert [(each["model"], each["code"]) for each in seen] == [
        ("", Code.RESOURCE_EXHAUSTED),
        ("m", Code.OK),
    ]


def test_what_is_refused_unread_is_counted(serve) -> None:
    seen = []
    with serve(limit=1000) as made:
        made.api.metrics.observe_request = lambda **labels: seen.append(labels)
        made.start(PREDICT, request(2000), None).code()
        assert made.start(PREDICT, b"\xff", None).code() is Code.INVALID_ARGUMENT
        call = made.start(PREDICT, request(900), None)
        assert call.code() is Code.OK
    codes = [(each["api"], each["model"], each["code"]) for each in seen]
    assert ("Predict", "", Code.INVALID_ARGUMENT) in codes
    assert ("Predict", "m", Code.OK) in codes


def test_answers_count_until_slow_readers_have_read_them(serve, engine) -> None:
    engine.gate.clear()
    with serve(limit=30_000_000) as made, contextlib.ExitStack() as stack:
        lines = [stack.enter_context(slow_line(made.port)) for _ in range(2)]
        stubs = [stack.enter_context(stub_for(f"127.0.0.1:{line.port}")) for line in lines]
        slow = [stub.start(PREDICT, request(12_000_000), None) for stub in stubs]
        wait_until(lambda: engine.running == 2)
        for line in lines:
            line.open.clear()
        engine.gate.set()
        wait_until(lambda: not engine.running)
        refused = made.start(PREDICT, request(12_000_000), None)
        assert refused.code() is Code.RESOURCE_EXHAUSTED
        assert "--max_inflight_bytes" in refused.details()
        for line in lines:
            line.open.set()
        assert {call.code() for call in slow} == {Code.OK}
        wait_until(lambda: made.api.admission.held == 0)


def test_a_reader_who_leaves_during_an_answer_leaks_no_memory(serve, engine) -> None:
    with serve() as made, slow_line(made.port) as line, stub_for(f"127.0.0.1:{line.port}") as slow:
        engine.gate.clear()
        call = slow.start(PREDICT, request(24_000_000), None, timeout=60)
        wait_until(lambda: engine.running)
        line.open.clear()
        engine.gate.set()
        wait_until(lambda: not engine.running)
        assert made.api.admission.held
        call.cancel()
        line.open.set()
        wait_until(lambda: made.api.admission.held == 0)
        assert made.start(PREDICT, request(), None).code() is Code.OK


@pytest.mark.usefixtures("no_call_ends_by_the_clock")
def test_calls_that_wait_hold_no_thread(serve, engine) -> None:
    engine.gate.clear()
    with serve(grpc_config={"max_threads": 1}) as made, HalfOpen(made) as half:
        first = made.start(PREDICT, request(), None, timeout=100)
        wait_until(lambda: engine.running == 1)
        before = threading.active_count()
        half.open(STATUS, 20)
        wait_until(lambda: made.server.open_calls == 21)
        more = [made.start(PREDICT, request(), None, timeout=100) for _ in range(200)]
        wait_until(lambda: made.server.open_calls == 221)
        threads = [thread.name for thread in threading.enumerate()]
        # Each of the test's own half-open calls takes a thread.
        own = sum(name.startswith("Thread-") for name in threads)
        assert threading.active_count() - own <= before
        engine.gate.set()
        assert {call.code() for call in [first, *more]} == {Code.OK}
