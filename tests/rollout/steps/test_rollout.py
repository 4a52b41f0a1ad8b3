"""A rollout of two real servers under load, and its failures."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from featurewire import Client, FeaturewireError
from featurewire_rollout import (
    ConfigFileError,
    ConflictError,
    FleetError,
    PreflightError,
    RefusedError,
    SpaceError,
)
from featurewire_rollout.check import CheckConfig, Thresholds
from featurewire_rollout.steps.watch import WatchConfig
from featurewire_rollout.store.file import FileStore
from tests.rollout.stack import Stack
from tests.support.models import expected_vector

JPEG = b"\xff\xd8\xff\x00\x01"


@pytest.fixture
def idle(tmp_path: Path, tiny_model: Path) -> Stack:
    """A stack whose servers are not running."""
    return Stack(tmp_path, tiny_model)


@pytest.fixture
def stack(idle: Stack) -> Iterator[Stack]:
    with idle.running():
        yield idle


class Load:
    """Callers of `label` until the end, whose replies are checked by their version."""

    def __init__(self, target: str, label: str | None) -> None:
        self.failures: list[str] = []
        self.versions: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(target, label))

    def _run(self, target: str, label: str | None) -> None:
        with Client(target, model="tiny", label=label) as client:
            while not self._stop.is_set():
                try:
                    made = client.embed(JPEG)
                except FeaturewireError as error:
                    self.failures.append(str(error))
                    continue
                self.versions.add(made.version)
                if not (made.vector == expected_vector(JPEG, version=made.version)).all():
                    self.failures.append(f"a wrong vector of version {made.version}")

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)


def test_start_promote_retire_under_load_fails_no_request(stack: Stack) -> None:
    stack.publish(2)
    target = stack.servers[0].target
    with Load(target, None) as load, stack.rollout(audit=stack.config.with_name("audit")) as step:
        assert step.status().phase.name == "none"
        assert step.start(2).phase.name == "on trial"
        with Load(target, "stable") as stable:
            with pytest.raises(SpaceError, match="--accept-new-space"):
                step.promote()
            assert step.promote(accept_new_space=True).phase.name == "promoted"
            assert step.promote().phase.name == "promoted"
            with pytest.raises(RefusedError, match="canary and stable would point to nothing"):
                step.retire(2)
            done = step.retire()
    assert load.failures == stable.failures == []
    assert stable.versions == {1, 2}
    assert done.phase.name == "at rest"
    assert done.entry is not None
    assert done.entry.versions == (2,)
    assert stack.labels() == [{"stable": 2, "canary": 2}] * 2
    assert "# ours" in stack.config.read_text()
    assert stack.config.with_name("audit").read_text().count("\n") >= 8
    stack.servers[0].kill()
    stack.servers[0].start()  # the config works at a cold start
    assert stack.labels() == [{"stable": 2, "canary": 2}] * 2


def test_rollback_moves_the_labels_back_and_can_be_repeated(stack: Stack) -> None:
    stack.publish(2)
    with stack.rollout() as step:
        step.start(2)
        step.promote(accept_new_space=True)
        for _ in range(2):
            step.rollback()
            assert stack.labels() == [{"stable": 1, "canary": 1}] * 2
        assert step.retire().fleet.available_everywhere() == {1}


def test_a_version_that_is_not_whole_is_not_loaded(stack: Stack) -> None:
    before = stack.config.read_text()
    (stack.publish(2) / "saved_model.pb").unlink()
    with stack.rollout() as step, pytest.raises(PreflightError, match="is incomplete"):
        step.start(2)
    assert stack.config.read_text() == before


def test_a_version_that_does_not_load_leaves_the_config_as_it_was(stack: Stack) -> None:
    version = stack.publish(2)
    (version / "saved_model.pb").write_bytes(b"\x08\x01")  # complete but unusable
    before = stack.config.read_text()
    with stack.rollout() as step:
        with pytest.raises(FleetError, match=r"cannot load version 2: .*restored"):
            step.start(2)
        assert stack.config.read_text() == before
        assert step.status().fleet.available_everywhere() == {1}


def test_a_config_with_a_mistake_is_named_and_left_alone(idle: Stack) -> None:
    broken = idle.config.read_text() + "}"
    idle.config.write_text(broken)
    with idle.rollout() as step, pytest.raises(ConfigFileError, match=r"models\.config:\d+"):
        step.start(2)
    assert idle.config.read_text() == broken


def test_the_second_operator_is_told(idle: Stack) -> None:
    idle.publish(2)
    with (
        FileStore(idle.config).lock("alice"),
        idle.rollout() as step,
        pytest.raises(ConflictError, match="alice"),
    ):
        step.start(2)


def test_a_replica_that_is_down_is_named_and_may_be_allowed(stack: Stack) -> None:
    stack.publish(2)
    down = stack.servers[1]
    down.kill()
    with (
        stack.rollout(timeout=0.5) as step,
        pytest.raises(FleetError, match=rf"{down.target}.*--allow-missing 1"),
    ):
        step.start(2)
    with stack.rollout(allow_missing=1) as step:
        assert step.start(2).phase.name == "on trial"


@pytest.mark.parametrize(("source", "status", "left"), [(1, 0, {1, 2}), (2, 1, {1})])
def test_run_ends_promoted_or_rolled_back(
    stack: Stack, tmp_path: Path, source: int, status: int, left: set[int]
) -> None:
    stack.publish(2, source=source)
    random.seed(0)
    for number in range(80):
        content = JPEG + random.randbytes(20)
        (tmp_path / f"{number}.jpg").write_bytes(content)
    # Ignore timing. The tiny model's vectors are almost parallel, so their similarities differ only
    # by rounding. The other model's vectors have another length.
    limits = Thresholds(max_latency_ratio=1000.0, min_rank_correlation=0.5 if status else -1.0)
    with stack.rollout() as step:
        found = step.run(
            2,
            tmp_path,
            watch=WatchConfig(seconds=0.5, max_latency_ratio=1000.0),
            check=CheckConfig(thresholds=limits, crops=False),
        )
        assert found == status
        assert step.status().fleet.available_everywhere() == left
    stable = 2 if status == 0 else 1
    assert [each["stable"] for each in stack.labels()] == [stable] * 2
