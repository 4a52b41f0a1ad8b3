"""Versions load, fail, are replaced and unloaded, with engines that tests control."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import text_format

from featurewire_server.batching.runner import Runner
from featurewire_server.common.errors import ServingError, not_found
from featurewire_server.models.manager import Manager, ManagerConfig
from featurewire_server.models.servable import State
from tests.server.support import TIMEOUT, FakeEngine, config, direct, model, spec
from tests.support.waiting import wait_until


class Loads:
    """A loader whose loads a test can hold or fail, by version."""

    def __init__(self) -> None:
        self.gates: dict[int, threading.Event] = {}
        self.failures: dict[int, str] = {}
        self.attempts: list[int] = []
        self.engines: dict[int, FakeEngine] = {}

    def hold(self, version: int) -> threading.Event:
        return self.gates.setdefault(version, threading.Event())

    def __call__(self, name: str, version: int, path: Path) -> Runner:
        self.attempts.append(version)
        if version in self.gates:
            assert self.gates[version].wait(TIMEOUT)
        if version in self.failures:
            raise not_found(self.failures[version])
        self.engines[version] = FakeEngine()
        return direct(self.engines[version])


@pytest.fixture
def loads() -> Loads:
    return Loads()


@pytest.fixture
def make(loads: Loads) -> Iterator:
    made: list[Manager] = []

    def manager(**options) -> Manager:
        settings = {"poll_seconds": 0.02, "max_load_retries": 0, "load_threads": 4} | options
        made.append(Manager(loads, ManagerConfig(**settings)))
        made[-1].start()
        return made[-1]

    yield manager
    for one in made:
        one.stop()


def add(base: Path, *versions: int) -> Path:
    for version in versions:
        (base / str(version)).mkdir(parents=True)
    return base


def states(manager: Manager, name: str = "m") -> dict[int, str]:
    return {s.version: State(s.state).name for s in manager.statuses(spec(name))}


def serves(manager: Manager, name: str = "m") -> int | None:
    """The version that answers, or None."""
    try:
        with manager.use(spec(name)) as servable:
            return servable.version
    except ServingError:
        return None


def test_a_new_version_replaces_the_old_one_without_a_gap(make, loads: Loads, tmp_path) -> None:
    manager = make()
    manager.reload(config(model("m", add(tmp_path, 1))))
    assert serves(manager) == 1
    gate = loads.hold(2)
    add(tmp_path, 2)
    wait_until(lambda: states(manager) == {2: "LOADING", 1: "AVAILABLE"})
    assert serves(manager) == 1
    gate.set()
    wait_until(lambda: states(manager) == {2: "AVAILABLE", 1: "END"})
    assert serves(manager) == 2
    assert loads.engines[1].closed


def test_a_version_that_fails_shows_why_and_harms_nobody(make, loads: Loads, tmp_path) -> None:
    loads.failures[2] = "half of it is missing"
    manager = make()
    manager.reload(config(model("m", add(tmp_path, 1))))
    add(tmp_path, 2)
    wait_until(lambda: states(manager).get(2) == "END")
    assert serves(manager) == 1
    failed = manager.statuses(spec("m", version=2))[0]
    assert failed.status.error_code == 5
    assert failed.status.error_message == "half of it is missing"


def test_a_failed_load_is_tried_again_and_tells_why_meanwhile(make, loads: Loads, tmp_path):
    loads.failures[1] = "not yet"
    manager = make(max_load_retries=1000, load_retry_seconds=0.02)
    with pytest.raises(ServingError, match="did not become available") as caught:
        manager.reload(config(model("m", add(tmp_path, 1))))
    assert caught.value.code is grpc.StatusCode.UNKNOWN
    status = manager.statuses(spec("m"))[0]
    assert (status.state, status.status.error_message) == (State.LOADING, "not yet")
    del loads.failures[1]
    wait_until(lambda: serves(manager) == 1)
    assert manager.statuses(spec("m"))[0].status.error_message == ""


def test_loads_are_tried_as_often_as_told(make, loads: Loads, tmp_path) -> None:
    loads.failures[1] = "never"
    manager = make(max_load_retries=2, load_retry_seconds=0.0)
    with pytest.raises(ServingError):
        manager.reload(config(model("m", add(tmp_path, 1))))
    wait_until(lambda: states(manager) == {1: "END"})
    assert loads.attempts == [1, 1, 1]


def test_a_version_that_disappears_is_not_tried_again(make, loads: Loads, tmp_path) -> None:
    loads.failures[1] = "broken"
    manager = make(max_load_retries=1000, load_retry_seconds=60)
    with pytest.raises(ServingError):
        manager.reload(config(model("m", add(tmp_path, 1))))
    shutil.rmtree(tmp_path / "1")
    wait_until(lambda: states(manager) == {1: "END"})


def test_a_failed_version_that_is_published_again_is_loaded(make, loads: Loads, tmp_path) -> None:
    loads.failures[2] = "half-written"
    manager = make()
    manager.reload(config(model("m", add(tmp_path, 1))))
    add(tmp_path, 2)
    wait_until(lambda: states(manager).get(2) == "END")
    shutil.rmtree(tmp_path / "2")
    add(tmp_path, 3)
    wait_until(lambda: serves(manager) == 3)  # proves a poll after the removal of version 2
    del loads.failures[2]
    shutil.rmtree(tmp_path / "3")
    add(tmp_path, 2)
    wait_until(lambda: serves(manager) == 2)


def test_unloading_waits_for_what_is_in_flight(make, loads: Loads, tmp_path) -> None:
    manager = make()
    manager.reload(config(model("m", add(tmp_path, 1))))
    with manager.use(spec("m")) as servable:
        add(tmp_path, 2)
        wait_until(lambda: states(manager) == {2: "AVAILABLE", 1: "UNLOADING"})
        assert serves(manager) == 2
        assert not loads.engines[1].closed
        assert servable.runner is not None
    wait_until(lambda: loads.engines[1].closed)


def test_a_rolled_back_version_comes_back(make, tmp_path) -> None:
    manager = make()
    manager.reload(config(model("m", add(tmp_path, 1, 2))))
    assert serves(manager) == 2
    specific = "model_version_policy { specific { versions: 1 } }"
    manager.reload(config(model("m", tmp_path, specific)))
    wait_until(lambda: states(manager) == {2: "END", 1: "AVAILABLE"})
    manager.reload(config(model("m", tmp_path)))
    wait_until(lambda: states(manager) == {2: "AVAILABLE", 1: "END"})


def test_a_model_that_is_left_out_is_unloaded(make, tmp_path) -> None:
    manager = make()
    one, two = add(tmp_path / "one", 1), add(tmp_path / "two", 1)
    manager.reload(config(model("one", one), model("two", two)))
    manager.reload(config(model("two", two)))
    wait_until(lambda: states(manager, "one") == {1: "END"})
    assert serves(manager, "two") == 1


def test_a_broken_model_does_not_hold_up_the_others(make, loads: Loads, tmp_path) -> None:
    loads.failures[7] = "broken"
    manager = make(max_load_retries=1000, load_retry_seconds=60)
    models = model("bad", add(tmp_path / "bad", 7)), model("good", add(tmp_path / "good", 1))
    with pytest.raises(ServingError, match="name: bad version: 7"):
        manager.reload(config(*models))
    assert serves(manager, "good") == 1
    assert serves(manager, "bad") is None


def test_an_illegal_config_changes_nothing(make, tmp_path) -> None:
    manager = make()
    manager.reload(config(model("m", add(tmp_path, 1))))
    with pytest.raises(ServingError, match="multiple times"):
        manager.reload(config(model("n", tmp_path), model("n", tmp_path)))
    assert serves(manager) == 1
    assert serves(manager, "n") is None


@pytest.mark.parametrize(
    ("mistake", "reason"),
    [
        ('model_platform: ""', "Illegal setting neither ModelServerConfig::model_type"),
        ("model_type: TENSORFLOW", "Illegal setting both ModelServerConfig::model_type"),
        ('name: ""', "needs a name"),
        ('base_path: "/nowhere/at/all"', "cannot read the base path /nowhere/at/all"),
    ],
)
def test_a_mistaken_config_does_not_keep_out_the_next(
    make, tmp_path: Path, mistake: str, reason: str
) -> None:
    """TensorFlow Serving accepts no config after one of these."""
    base = add(tmp_path, 1, 2)
    manager = make()
    manager.reload(config(model("m", base)))
    mistaken = config(model("m", base), model("n", base))
    text_format.Merge(mistake, mistaken.model_config_list.config[1])
    with pytest.raises(ServingError, match=reason):
        manager.reload(mistaken)
    assert serves(manager) == 2
    manager.reload(config(model("m", base), model("n", base)))
    assert serves(manager, "n") == 2


def test_a_missing_base_path_unloads_nothing(make, tmp_path) -> None:
    base = add(tmp_path / "base", 1)
    manager = make()
    manager.reload(config(model("m", base)))
    base.rename(tmp_path / "elsewhere")
    manager.poll()
    assert serves(manager) == 1


def test_an_empty_base_path_unloads_the_model(make, tmp_path) -> None:
    manager = make()
    manager.reload(config(model("m", add(tmp_path, 1))))
    shutil.rmtree(tmp_path / "1")
    wait_until(lambda: states(manager) == {1: "END"})
    assert serves(manager) is None


def test_only_directories_with_a_number_for_a_name_are_versions(make, tmp_path) -> None:
    add(tmp_path, 1)
    (tmp_path / "3").write_text("a file")
    for name in ("2.tmp", "latest", "-4", "99999999999999999999"):
        (tmp_path / name).mkdir()
    manager = make()
    manager.reload(config(model("m", tmp_path)))
    manager.poll()
    assert states(manager) == {1: "AVAILABLE"}


LABELLED = "model_version_policy { all {} } version_labels { key: 'stable' value: %d }"


def test_moving_a_label_takes_two_steps(make, loads: Loads, tmp_path) -> None:
    manager = make()
    manager.reload(config(model("m", add(tmp_path, 1), "model_version_policy { all {} }")))
    manager.reload(config(model("m", tmp_path, LABELLED % 1)))
    gate = loads.hold(2)
    add(tmp_path, 2)
    with pytest.raises(ServingError, match="label to version 2"):
        manager.reload(config(model("m", tmp_path, LABELLED % 2)))
    with manager.use(spec("m", label="stable")) as servable:
        assert servable.version == 1
    gate.set()
    wait_until(lambda: states(manager).get(2) == "AVAILABLE")
    manager.reload(config(model("m", tmp_path, LABELLED % 2)))
    with manager.use(spec("m", label="stable")) as servable:
        assert servable.version == 2


def test_a_config_with_labels_is_refused_at_a_cold_start(make, loads: Loads, tmp_path) -> None:
    with pytest.raises(ServingError) as caught:
        make().reload(config(model("m", add(tmp_path, 1), LABELLED % 1)))
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert loads.attempts == []


def test_the_flag_lets_a_config_with_labels_start(make, tmp_path) -> None:
    manager = make(allow_labels_for_unavailable=True)
    manager.reload(config(model("m", add(tmp_path, 1), LABELLED % 1)))
    with manager.use(spec("m", label="stable")) as servable:
        assert servable.version == 1


def test_one_version_loads_at_a_time_unless_told_otherwise(make, loads: Loads, tmp_path) -> None:
    gate = loads.hold(3)
    loads.hold(1).set()
    manager = make(load_threads=0)
    everything = config(model("m", add(tmp_path, 1, 3), "model_version_policy { all {} }"))
    waiting = threading.Thread(target=manager.reload, args=(everything,))
    waiting.start()
    wait_until(lambda: loads.attempts)
    first = loads.attempts[0]
    assert loads.attempts == [first]
    gate.set()
    waiting.join(TIMEOUT)
    assert sorted(loads.attempts) == [1, 3]


def test_it_is_ready_when_every_model_has_a_version(make, loads: Loads, tmp_path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "1").mkdir(parents=True)
    (tmp_path / "b" / "1").rename(tmp_path / "b" / "2")
    loads.failures[2] = "broken"
    manager = make()
    manager.reload(config(model("a", tmp_path / "a")))
    assert manager.ready
    assert manager.available("a") == [1]
    with pytest.raises(ServingError):
        manager.reload(config(model("a", tmp_path / "a"), model("b", tmp_path / "b")))
    assert not manager.ready
    assert manager.available("b") == []
    manager.reload(config(model("a", tmp_path / "a")))
    assert manager.ready
    manager.stop()
    assert not manager.ready
