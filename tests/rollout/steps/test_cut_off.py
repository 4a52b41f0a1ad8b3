"""After kill -9 of the tool at any point, the state is reported, served and can be continued."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from featurewire import RetryConfig
from featurewire_rollout import Status
from featurewire_rollout.fleet import converge
from tests.rollout.killed import Commands
from tests.rollout.stack import Stack
from tests.support.callers import Callers, Onlooker
from tests.support.models import expected_vector

IMAGES = [b"\xff\xd8\xff" + bytes([number]) for number in range(5)]

STATES = {
    "start": ("at rest", ["loading", "loaded"], "on trial"),
    "start in vain": ("at rest", ["loading"], "at rest"),
    "promote": ("on trial", [], "promoted"),
    "rollback": ("promoted", [], "loaded"),
    "retire": ("promoted", ["loaded"], "at rest"),
}
"""State before each step, possible states after a kill, and state after the step."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory, tiny_model: Path) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("cut-off"), tiny_model, replicas=1, labelled=True)
    made.publish(2)
    broken = made.publish(3) / "saved_model.pb"
    broken.write_bytes(broken.read_bytes().replace(b"RestoreV2", b"RestoreV9"))
    with made.running():
        yield made


@pytest.fixture(scope="module")
def commands(tmp_path_factory) -> Iterator[Commands]:
    with Commands(tmp_path_factory.mktemp("commands") / "log") as made:
        yield made


def at_rest(stack: Stack) -> None:
    """Roll back to version 1, whichever step was interrupted."""
    with stack.rollout() as step:
        entry = step.status().entry
        assert entry is not None
        if entry.labels["stable"] == 2 and 1 not in (entry.versions or ()):  # it is retired
            step.start(1)
            step.promote(accept_new_space=True)
        step.rollback(1)
        status = step.retire()
    assert status.phase.name == "at rest"
    assert status.fleet.available_everywhere() == {1}


def bring_to(stack: Stack, step_name: str) -> None:
    """Bring the stack into the state before a step."""
    at_rest(stack)
    with stack.rollout() as step:
        if step_name in ("promote", "rollback", "retire"):
            step.start(2)
        if step_name in ("rollback", "retire"):
            step.promote(accept_new_space=True)


def looked(stack: Stack) -> Status:
    with stack.rollout() as step:
        return step.status()


@pytest.mark.slow
@pytest.mark.parametrize("step", STATES)
def test_a_tool_that_is_killed_at_any_point_leaves_a_stated_state(
    stack: Stack, commands: Commands, step: str, monkeypatch
) -> None:
    """Kill the step at each point once, and check the state, the lock, and the way on or back."""
    monkeypatch.setattr(converge, "POLL_SECONDS", 0.02)
    before, between, after = STATES[step]
    in_vain = step == "start in vain"
    argv = [step.split()[0], *stack.options(), "--timeout=60"]
    argv += ["--no-memory-check"] if "start" in step else []
    argv += ["--version=3", "--base-path=/nowhere"] if in_vain else []
    argv += ["--version=2"] if step == "start" else []
    argv += ["--accept-new-space"] if step == "promote" else []
    bring_to(stack, step)
    once = RetryConfig(max_attempts=1)
    callers = Callers(stack.target, model="tiny", images=IMAGES, retry=once, pause=0.05)
    with Onlooker([stack.target], model="tiny") as onlooker, callers as load:
        status, points = commands.run(argv)
        assert status == in_vain, commands.log.read_text()
        assert looked(stack).phase.name == after
        known = {"record", "read", "_write", "rename", "reload", "read_state"}
        assert known >= set(points) >= {"rename"}
        for number in range(1, len(points) + 1):
            bring_to(stack, step)
            status, passed = commands.run(argv, kill_at=number)
            if status == in_vain and number > len(passed):
                continue  # one query fewer than in the first run
            assert status == -9, commands.log.read_text()
            left = looked(stack)
            assert left.entry is not None
            assert left.entry.labels["stable"] in left.fleet.available_everywhere()
            assert left.phase.name in [before, *between, after], passed
            assert left.phase.next
            load.wait(2, timeout=60)
            if number % 2:  # continue this one, and roll the others back
                status, _ = commands.run(argv)
                assert status == in_vain, (passed, commands.log.read_text())
                assert looked(stack).phase.name == after, passed
        at_rest(stack)
        assert not list(stack.config.parent.glob(".*.tmp"))
    assert load.failures == []
    assert onlooker.not_available(load.answers) == []
    assert all(
        (each.vector == expected_vector(IMAGES[each.image], version=each.version)).all()
        for each in load.answers
    )
