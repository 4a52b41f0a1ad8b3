"""Faults during a rollout under load end in the old state or in a reported one."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from featurewire import Client, RetryConfig
from featurewire_rollout import (
    ConfigFileError,
    ConflictError,
    FleetError,
    Rollout,
    RolloutConfig,
)
from featurewire_rollout.check import CheckConfig
from featurewire_rollout.fleet import converge
from tests.rollout.killed import Commands
from tests.rollout.stack import Stack
from tests.support.callers import Callers, Onlooker
from tests.support.models import expected_vector
from tests.support.waiting import wait_until

IMAGES = [b"\xff\xd8\xff" + bytes([number]) for number in range(5)]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converge, "POLL_SECONDS", 0.02)


@pytest.fixture(scope="module")
def running(tmp_path_factory, tiny_model: Path) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("faults"), tiny_model, replicas=3, labelled=True)
    made.publish(2)
    with made.running():
        yield made


@pytest.fixture
def stack(running: Stack) -> Iterator[Stack]:
    """Three servers at rest with version 1, restored after each test."""
    text = running.config.read_text()
    yield running
    running.config.write_text(text)
    with running.rollout() as step:
        step.rollback(1)
        step.retire()


@contextmanager
def load(stack: Stack, *, retry: RetryConfig = RetryConfig(max_attempts=1)) -> Iterator[Callers]:  # noqa: B008
    """Load during which no call may fail, and no vector may be wrong or of an unloaded version."""
    callers = Callers(
        stack.target, model="tiny", images=IMAGES, retry=retry, pause=0.05, timeout=60.0
    )
    servers = [server.target for server in stack.servers]
    with Onlooker(servers, model="tiny") as onlooker:
        with callers:
            callers.wait(10)
            yield callers
            callers.wait(10)
        assert callers.failures == []
        assert onlooker.not_available(callers.answers) == []
    for answer in callers.answers:
        expected = expected_vector(IMAGES[answer.image], version=answer.version)
        assert (answer.vector == expected).all()


def serves(stack: Stack, version: int) -> None:
    """Check that all replicas and the config are at rest with `version`."""
    with stack.rollout() as step:
        status = step.status()
    assert (status.phase.name, status.phase.differences) == ("at rest", ())
    assert status.entry is not None
    assert status.entry.versions == (version,)
    assert [dict(each.labels) for each in status.fleet.replicas] == [
        {"stable": version, "canary": version}
    ] * len(stack.servers)


def photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    chance = random.Random(0)
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(b"\xff\xd8\xff" + chance.randbytes(20))
    return folder


def test_a_whole_rollout_with_check_and_rollback_fails_no_request(stack, tmp_path) -> None:
    with load(stack) as callers, stack.rollout() as step:
        step.start(2)
        report = step.check(photos(tmp_path / "photos", 60), CheckConfig(crops=False))
        assert report.verdict.space == "new"  # its vectors have another length
        callers.wait(3, version=2)
        step.promote(accept_new_space=True)
        callers.wait(20, version=2)
        step.rollback()
        step.start(2)
        step.promote(accept_new_space=True)
        step.retire()
        serves(stack, 2)
        step.start(1)
        step.promote(accept_new_space=True)
        step.retire()
    serves(stack, 1)
    assert {each.version for each in callers.answers} == {1, 2}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def other_op(path: Path) -> None:
    data = path.read_bytes()
    assert b"RestoreV2" in data
    path.write_bytes(data.replace(b"RestoreV2", b"RestoreV9"))


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        pytest.param("variables/variables.data-00000-of-00001", cut, marks=pytest.mark.slow),
        pytest.param("variables/variables.index", Path.unlink, marks=pytest.mark.slow),
        ("saved_model.pb", cut),
        pytest.param("saved_model.pb", other_op, marks=pytest.mark.slow),
    ],
)
def test_a_version_that_is_broken_ends_in_the_old_state(
    stack: Stack, file: str, damage: Callable[[Path], None]
) -> None:
    """Only the servers notice, because the version's manifest lacks digests."""
    version = stack.publish(3)
    damage(version / file)
    before = stack.config.read_text()
    try:
        with load(stack), stack.rollout() as step:
            with pytest.raises(FleetError, match=r"cannot load version 3: .*restored"):
                step.start(3)
            assert stack.config.read_text() == before
            serves(stack, 1)
    finally:
        shutil.rmtree(version)


@pytest.mark.parametrize("moment", ["loading", "moving stable", "stable and canary", "unloading"])
def test_a_replica_that_is_killed_in_mid_rollout_is_waited_for(stack: Stack, moment: str) -> None:
    """Kill the replica at the given moment, and restart it when the tool has noticed."""
    victim = stack.servers[1]
    killed: list[Any] = []

    def say(text: str) -> None:
        if text.startswith(moment) and not killed:
            victim.kill()
            killed.append(text)
        if text.startswith("waiting for") and victim.process.poll() is not None:
            victim.start()

    servers = [server.target for server in stack.servers]
    config = RolloutConfig(
        config=str(stack.config), servers=servers, model="tiny", memory_check=False, timeout=90.0
    )
    with load(stack, retry=RetryConfig(max_attempts=8)), Rollout(config, say=say) as step:
        assert step.start(2).phase.differences == ()
        assert step.promote(accept_new_space=True).phase.differences == ()
        assert step.rollback().phase.differences == ()
        assert step.retire().phase.name == "at rest"
        assert killed
    serves(stack, 1)


@pytest.mark.slow
def test_a_lost_replica_is_named_and_the_old_state_is_restored(stack) -> None:
    victim = stack.servers[2]
    killed: list[Any] = []

    def say(text: str) -> None:
        if text.startswith("loading") and not killed:
            victim.kill()
            killed.append(text)

    before = stack.config.read_text()
    config = RolloutConfig(
        config=str(stack.config),
        servers=[server.target for server in stack.servers],
        model="tiny",
        memory_check=False,
        timeout=2.0,
    )
    try:
        with load(stack, retry=RetryConfig(max_attempts=8)):
            with Rollout(config, say=say) as step, pytest.raises(FleetError, match=victim.target):
                step.start(2)
            assert stack.config.read_text() == before
    finally:
        victim.start()
    with stack.rollout() as step:
        step.rollback()
    serves(stack, 1)


def test_a_syntax_error_by_hand_stops_the_tool_and_nothing_else(stack: Stack) -> None:
    with load(stack), stack.rollout() as step:
        step.start(2)
        on_trial = stack.config.read_text()
        broken = on_trial.replace("model_platform", "model_platform:: {", 1)
        stack.config.write_text(broken)
        for act in (step.promote, step.rollback, step.retire, lambda: step.start(2), step.status):
            with pytest.raises(ConfigFileError, match=r"models\.config:\d+"):
                act()
        assert stack.config.read_text() == broken
        stack.config.write_text(on_trial)
        assert step.status().phase.name == "on trial"
        step.rollback()
        step.retire()
    serves(stack, 1)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A folder on a disk of 64 KiB. Skips the test if it cannot be made."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_leaves_the_old_config(stack: Stack, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk, load(stack):
        config = disk / "models.config"
        config.write_text(stack.config.read_text())
        filler = disk / "filler"
        with pytest.raises(OSError, match="No space"):
            filler.write_bytes(bytes(2**17))
        before = config.read_bytes()
        with stack.rollout(config=str(config)) as step:
            with pytest.raises(ConfigFileError, match="No space left on device; it is unchanged"):
                step.start(2)
            assert config.read_bytes() == before
            filler.unlink()
            assert step.start(2).phase.name == "on trial"
            step.rollback()
            step.retire()
    serves(stack, 1)


def test_a_limit_on_the_size_of_files_leaves_the_old_config(stack: Stack, tmp_path: Path) -> None:
    """Fail in the middle of a write, like a full disk."""
    before = stack.config.read_bytes()
    with Commands(tmp_path / "log") as commands:
        argv = ["start", *stack.options(), "--version=2", "--no-memory-check"]
        status, points = commands.run(argv, largest_file=200)
        assert status == 1
        assert "_write" in points
        # Its output is also truncated at that size.
        assert "featurewire rollout: cannot write" in commands.log.read_text()
    assert stack.config.read_bytes() == before
    assert not list(stack.config.parent.glob(".*.tmp"))
    serves(stack, 1)


def test_of_two_operators_at_once_the_second_is_told(stack: Stack, tmp_path: Path) -> None:
    """The first one's audit is an unread pipe, so it waits and keeps the lock."""
    audit = tmp_path / "audit"
    os.mkfifo(audit)
    argv = ["start", *stack.options(), "--version=2", "--no-memory-check", f"--audit={audit}"]
    with Commands(tmp_path / "log") as commands, stack.rollout() as second:
        wait = commands.start(argv)
        audit.read_bytes()  # the tool opens it once, to check that it is writable
        lock = stack.config.with_name(".models.config.rollout-lock")
        wait_until(lambda: lock.exists() and "start of tiny" in lock.read_text(), 60)
        before = stack.config.read_text()
        for act in (lambda: second.start(2), second.rollback, second.retire):
            with pytest.raises(ConflictError, match=r"is being changed by .*start of tiny"):
                act()
        assert stack.config.read_text() == before
        drain = threading.Thread(target=lambda: _drain(audit, until=b'"done"'))
        drain.start()
        status, _ = wait()
        drain.join(60)
        assert status == 0
        assert second.rollback().phase.name == "loaded"
        second.retire()
    serves(stack, 1)


def _drain(pipe: Path, *, until: bytes) -> None:
    while until not in pipe.read_bytes():
        pass


@pytest.mark.slow
def test_replicas_end_consistent_while_one_restarts_at_random(stack: Stack) -> None:
    stop, chance = threading.Event(), random.Random(1)
    restarts: list[Any] = []

    def restart() -> None:
        while not stop.is_set() and len(restarts) < 5:
            server = chance.choice(stack.servers)
            server.kill()
            server.start()
            with Client(server.target, model="tiny", label="stable") as client:
                client.wait_until_ready(60)
            restarts.append(server.target)
            stop.wait(chance.uniform(0.2, 1))

    with load(stack, retry=RetryConfig(max_attempts=8)), stack.rollout(timeout=120.0) as step:
        thread = threading.Thread(target=restart)
        thread.start()
        try:
            step.start(2)
            step.promote(accept_new_space=True)
            step.rollback()
            step.start(2)
            step.promote(accept_new_space=True)
            step.retire()
        finally:
            stop.set()
            thread.join(120)
        assert restarts
        serves(stack, 2)
        step.start(1)
        step.promote(accept_new_space=True)
        step.retire()
    serves(stack, 1)


@pytest.mark.slow
def test_a_label_is_back_on_all_replicas_as_soon_as_rollback_returns(stack: Stack) -> None:
    with load(stack), stack.rollout() as step:
        step.start(2)
        step.promote(accept_new_space=True)
        assert stack.labels() == [{"stable": 2, "canary": 2, "previous": 1}] * 3
        step.rollback()
        assert stack.labels() == [{"stable": 1, "canary": 1}] * 3
