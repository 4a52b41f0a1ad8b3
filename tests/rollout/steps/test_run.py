"""`run` ends in one of its two states, whatever happens."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from featurewire_rollout import FleetError, RolloutError
from featurewire_rollout.check import CheckConfig
from featurewire_rollout.check.verdict import Outcome, Space, Verdict
from featurewire_rollout.decide.entry import Entry
from featurewire_rollout.steps.run import run
from featurewire_rollout.steps.watch import WatchConfig

REST = Entry(versions=(1,), labels={"stable": 1, "canary": 1})
TRIAL = Entry(versions=(1, 2), labels={"stable": 1, "canary": 2})
PROMOTED = Entry(versions=(1, 2), labels={"stable": 2, "canary": 2, "previous": 1})
BACK = Entry(versions=(1, 2), labels={"stable": 1, "canary": 1})
KEPT = Entry(versions=(0, 1), labels={"stable": 1, "canary": 1, "previous": 0})


def report(
    status: int,
    space: Space,
    *,
    fit: bool = True,
    spaces: tuple[str, str] = ("a", "a"),
    bridge: float | None = None,
) -> Any:
    outcomes: dict[int, Outcome] = {0: "pass", 1: "fail", 3: "inconclusive"}
    return SimpleNamespace(
        exit_status=status,
        verdict=Verdict(outcome=outcomes[status], space=space, text="told", fit=fit, bridge=bridge),
        pairs=SimpleNamespace(
            stable=SimpleNamespace(version=1, vector_space=spaces[0]),
            canary=SimpleNamespace(
                version=2, vector_space=spaces[1], bridges={"a": bridge} if bridge else {}
            ),
        ),
    )


@dataclass
class Steps:
    """Stores the config, and fails at one step."""

    at: Entry = REST
    found: Any = field(default_factory=lambda: report(0, "same"))
    fault: str = ""
    failing: dict[str, BaseException] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def _do(self, name: str, then: Entry) -> None:
        self.done.append(name)
        if (error := self.failing.pop(name, None)) is not None:
            raise error
        self.at = then

    def entry(self) -> Entry:
        return self.at

    def start(self, version: int) -> None:
        self._do("start", TRIAL)

    def check(self, images: Path, config: CheckConfig) -> Any:
        self._do("check", self.at)
        return self.found

    def promote(self, version: int, *, accept_new_space: bool) -> None:
        assert accept_new_space
        self._do("promote", PROMOTED)

    def watch(self, images: Path, config: WatchConfig) -> str:
        self._do("watch", self.at)
        return self.fault

    def rollback(self) -> None:
        self._do("rollback", BACK)

    def retire(self, version: int) -> None:
        self._do(f"retire {version}", REST)

    def run(self, *, accept: bool = False, accept_bridge: bool = False) -> int:
        return run(
            self,
            2,
            Path(),
            check=CheckConfig(),
            watch=WatchConfig(),
            accept_new_space=accept,
            accept_bridge=accept_bridge,
            judged=lambda _report: None,
            say=self.said.append,
        )


WAY = ["start", "check", "promote", "watch"]
UNDONE = ["rollback", "retire 2"]


@pytest.mark.parametrize(
    ("found", "accept", "status"),
    [
        (report(0, "same"), False, 0),
        (report(0, "compatible", spaces=("a", "b")), False, 0),
        (report(3, "unknown"), False, 3),
        (report(3, "unknown"), True, 3),
        (report(1, "new"), False, 1),
        (report(1, "new"), True, 0),
        (report(1, "new", fit=False), True, 1),
        (report(1, "same", fit=False), True, 1),
    ],
)
def test_the_check_decides_whether_it_is_promoted(found: Any, accept: bool, status: int) -> None:
    steps = Steps(found=found)
    assert steps.run(accept=accept) == status
    assert steps.done == (WAY if status == 0 else ["start", "check", *UNDONE])
    assert steps.at == (PROMOTED if status == 0 else REST)
    told = any("name two vector spaces: a (version 1) and b" in text for text in steps.said)
    assert told == (found.pairs.canary.vector_space == "b")


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (report(1, "new", spaces=("a", "b"), bridge=0.98), 0),
        (report(1, "new", spaces=("a", "b"), bridge=0.98, fit=False), 1),
        (report(1, "new", spaces=("a", "b")), 1),
        (report(3, "unknown", spaces=("a", "b"), bridge=0.98), 3),
    ],
)
def test_a_bridge_is_accepted_where_there_is_one(found: Any, status: int) -> None:
    steps = Steps(found=found)
    assert steps.run(accept_bridge=True) == status
    assert steps.done == (WAY if status == 0 else ["start", "check", *UNDONE])
    answered = any("be answered through the bridge" in text for text in steps.said)
    assert answered == (found.verdict.bridge is not None)
    assert Steps(found=found).run() == found.exit_status


def test_a_fault_in_the_watch_rolls_back() -> None:
    steps = Steps(fault="slow")
    assert steps.run() == 1
    assert steps.done == [*WAY, *UNDONE]


@pytest.mark.parametrize("error", [FleetError("a"), OSError("a"), ValueError("a")])
@pytest.mark.parametrize("step", WAY)
def test_what_is_raised_rolls_back_and_is_raised(step: str, error: Exception) -> None:
    steps = Steps(failing={step: error})
    with pytest.raises(type(error), match="a"):
        steps.run()
    assert steps.at == REST
    assert steps.done[-2:] == (UNDONE if step != "start" else ["start"])[-2:]


@pytest.mark.parametrize("step", WAY)
def test_an_interrupt_rolls_back(step: str) -> None:
    steps = Steps(failing={step: KeyboardInterrupt(143)})
    with pytest.raises(KeyboardInterrupt):
        steps.run()
    assert steps.at == REST


def test_a_rollback_that_fails_as_well_is_told() -> None:
    steps = Steps(failing={"check": FleetError("first"), "rollback": FleetError("second")})
    with pytest.raises(RolloutError, match="first; and the rollback failed: second"):
        steps.run()


def test_a_run_that_was_cut_off_goes_on() -> None:
    steps = Steps(at=PROMOTED)
    assert steps.run() == 0
    assert steps.done == ["watch"]
    steps = Steps(at=Entry(versions=(2,), labels={"stable": 2, "canary": 2}))
    assert steps.run() == 0
    assert steps.done == []


def test_a_failure_to_retire_the_kept_version_rolls_nothing_back() -> None:
    steps = Steps(at=KEPT)
    assert steps.run() == 0
    assert steps.done == ["retire 0", *WAY]
    steps = Steps(at=KEPT, failing={"retire 0": FleetError("a")})
    with pytest.raises(FleetError):
        steps.run()
    assert steps.at == KEPT
