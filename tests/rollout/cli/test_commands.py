"""The commands `check` and `run` with real servers: exit status, output and final state."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from featurewire import Client
from featurewire_rollout import SpaceError
from featurewire_rollout.command import rollout
from featurewire_rollout.fleet import converge
from tests.rollout.killed import Commands
from tests.rollout.stack import Stack
from tests.support.models import expected_vector, write_tiny_model

IMAGES = 70
CALLS = IMAGES + 3
"""Requests of a check to each version, including three extra ones for the first image."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converge, "POLL_SECONDS", 0.02)


@pytest.fixture(scope="module")
def running(tmp_path_factory, tiny_model: Path) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("runs"), tiny_model, replicas=1, labelled=True)
    with made.running():
        yield made


@pytest.fixture
def stack(running: Stack) -> Iterator[Stack]:
    """A stack at rest with version 1, and a version 2 that the test chooses."""
    yield running
    with running.rollout() as step:
        step.rollback(1)
        step.retire()
    shutil.rmtree(running.base / "2")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    chance = random.Random(0)
    for number in range(IMAGES):
        (folder / f"{number}.jpg").write_bytes(b"\xff\xd8\xff" + chance.randbytes(20))
    return folder


def options(stack: Stack, images: Path, *more: str) -> list[str]:
    # Ignore latency, which proves nothing here.
    return [*stack.options(), f"--images={images}", "--max-latency-ratio=1000", *more]


def state(stack: Stack) -> tuple[str, set[int]]:
    with stack.rollout() as step:
        status = step.status()
    return status.phase.name, status.fleet.available_everywhere()


@pytest.mark.parametrize(
    ("source", "more", "status", "outcome"),
    [
        (1, [], 0, "pass"),
        (2, [], 1, "fail"),
        (1, ["--max-images=8"], 3, "inconclusive"),
    ],
)
def test_check_exits_with_its_verdict_and_changes_nothing(
    stack: Stack, images: Path, tmp_path: Path, capsys, source, more, status, outcome
) -> None:
    stack.publish(2, source=source)
    with stack.rollout() as step:
        step.start(2)
    before = stack.config.read_text()
    outputs = [f"--output={tmp_path / 'o.json'}", f"--report={tmp_path / 'o.html'}", "--json"]
    capsys.readouterr()
    assert rollout(["check", *options(stack, images, *more, *outputs)]) == status
    printed = json.loads(capsys.readouterr().out)
    assert (printed["verdict"]["outcome"], printed["verdict"]["exit_status"]) == (outcome, status)
    assert json.loads((tmp_path / "o.json").read_text()) == printed
    assert (tmp_path / "o.html").stat().st_size > 1000
    assert stack.config.read_text() == before
    assert state(stack) == ("on trial", {1, 2})


def test_check_of_another_version_than_the_one_on_trial_is_a_failure(stack, images) -> None:
    from featurewire_rollout.check import CheckError

    stack.publish(2)
    with stack.rollout() as step:
        step.start(2)
    with pytest.raises(CheckError, match="version 3 is not on trial: canary is 2"):
        rollout(["check", *options(stack, images, "--version=3")])


def test_run_of_an_inconclusive_check_exits_with_3_and_is_rolled_back(
    stack: Stack, images: Path, tmp_path: Path, capsys
) -> None:
    stack.publish(2, source=1)
    before = stack.config.read_text()
    more = ["--version=2", "--max-images=8", f"--output={tmp_path / 'o.json'}"]
    assert rollout(["run", *options(stack, images, *more)]) == 3
    assert "more images would tell" in capsys.readouterr().err
    assert json.loads((tmp_path / "o.json").read_text())["verdict"]["exit_status"] == 3
    assert state(stack) == ("at rest", {1})
    assert stack.config.read_text() == before


def test_run_promotes_a_new_space_only_if_that_is_accepted(stack: Stack, images: Path) -> None:
    stack.publish(2)
    argv = ["run", *options(stack, images, "--version=2", "--watch=0.5")]
    assert rollout(argv) == 1
    assert state(stack) == ("at rest", {1})
    # A version that is not fit to serve is never promoted, whatever its space.
    assert rollout([*argv, "--accept-new-space", "--max-latency-ratio=0.0001"]) == 1
    assert state(stack) == ("at rest", {1})
    assert rollout([*argv, "--accept-new-space"]) == 0
    assert state(stack) == ("promoted", {1, 2})


@pytest.mark.slow
def test_a_new_space_with_a_bridge_is_checked_promoted_and_shown(
    stack: Stack, images: Path, tmp_path: Path, capsys
) -> None:
    """With `run` and step by step; clients that request the old space are still answered."""
    write_tiny_model(tmp_path, 2, bridge_to=1).rename(stack.base / "2")
    argv = ["run", *options(stack, images, "--version=2", "--watch=0.5")]
    assert rollout(argv) == 1
    assert "check: fail: new space, bridged: retention 0.98 at 10" in capsys.readouterr().err
    assert state(stack) == ("at rest", {1})
    target = stack.servers[0].target
    with Client(target, model="tiny", label="stable", vector_space="tiny-1") as client:
        assert not client.embed(b"\xff\xd8\xff").bridged
        assert rollout([*argv, "--accept-bridge"]) == 0
        assert state(stack) == ("promoted", {1, 2})
        assert client.embed(b"\xff\xd8\xff").bridged
        assert rollout(["rollback", *stack.options()]) == 0
        assert not client.embed(b"\xff\xd8\xff").bridged
        assert rollout(["start", *stack.options(), "--version=2"]) == 0
        with pytest.raises(SpaceError, match=r"has a bridge to it: retention 0.98 at 10; --accept"):
            rollout(["promote", *stack.options()])
        assert rollout(["promote", *stack.options(), "--accept-bridge"]) == 0
        assert rollout(["retire", *stack.options()]) == 0
        embedding = client.embed(b"\xff\xd8\xff")
        assert (embedding.version, embedding.bridged) == (2, True)
        assert np.array_equal(embedding.vector, expected_vector(b"\xff\xd8\xff", version=1))
    capsys.readouterr()
    assert rollout(["status", *stack.options()]) == 0
    assert "tiny-2, bridge to tiny-1" in (shown := capsys.readouterr().out)
    assert "tiny-1 is still served" in shown
    assert "version 2 by a bridge (retention 0.98 at 10)" in shown
    assert rollout(["status", *stack.options(), "--json"]) == 0
    versions = json.loads(capsys.readouterr().out)["replicas"][0]["versions"]
    assert [each["bridged_spaces"] for each in versions if each["version"] == 2] == [
        {"tiny-1": 0.98}
    ]
    with stack.rollout() as step:  # back to version 1 for the next test
        step.start(1)
        step.promote(accept_new_space=True)
        step.retire()


def test_a_bridge_is_not_accepted_where_there_is_none(stack: Stack) -> None:
    stack.publish(2)
    with stack.rollout() as step:
        step.start(2)
        with pytest.raises(SpaceError, match="version 2 has no bridge to the space of version 1"):
            step.promote(accept_bridge=True)


def test_run_rolls_back_if_the_promoted_version_fails_while_watched(
    stack: Stack, images: Path, tmp_path: Path, capsys
) -> None:
    """The version answers all requests of the check, and one more."""
    made = write_tiny_model(tmp_path, 1, answers=CALLS + 1)
    made.rename(stack.base / "2")
    before = stack.config.read_text()
    assert rollout(["run", *options(stack, images, "--version=2", "--watch=3")]) == 1
    said = capsys.readouterr().err
    assert "check: pass" in said
    assert "watch: " in said
    assert "% of the probes failed" in said or "no probe" in said
    assert "rolled back: version 2 is unloaded" in said
    assert state(stack) == ("at rest", {1})
    assert stack.config.read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize("point", ["check", "watch"])
def test_a_run_that_is_killed_goes_on_when_it_is_given_again(
    stack: Stack, images: Path, tmp_path: Path, point: str
) -> None:
    stack.publish(2, source=1)
    argv = ["run", *options(stack, images, "--version=2", "--watch=0.5", "--no-memory-check")]
    with Commands(tmp_path / "log") as commands:
        status, points = commands.run(argv)
        assert status == 0, commands.log.read_text()
        with stack.rollout() as step:
            step.rollback()
            step.retire()
        status, _ = commands.run(argv, kill_at=points.index(point) + 1)
        assert status == -9
        left = {"check": "on trial", "watch": "promoted"}[point]
        assert state(stack) == (left, {1, 2})
        status, passed = commands.run(argv)
        assert status == 0, commands.log.read_text()
        assert "watch" in passed
        assert state(stack) == ("promoted", {1, 2})
