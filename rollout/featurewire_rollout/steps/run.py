"""Take a version from start to promotion, and roll it back if anything fails on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from featurewire_rollout.check import CheckConfig, Report
from featurewire_rollout.decide.entry import Entry
from featurewire_rollout.decide.plan import PREVIOUS, STABLE
from featurewire_rollout.errors import RefusedError, RolloutError
from featurewire_rollout.fleet.converge import Say
from featurewire_rollout.steps.watch import WatchConfig


class Steps(Protocol):
    """The steps of a `Rollout` that a run uses."""

    def entry(self) -> Entry: ...

    def start(self, version: int) -> object: ...

    def check(self, images: Path, config: CheckConfig) -> Report: ...

    def promote(self, version: int, *, accept_new_space: bool) -> object: ...

    def watch(self, images: Path, config: WatchConfig) -> str: ...

    def rollback(self) -> object: ...

    def retire(self, version: int) -> object: ...


def run(
    steps: Steps,
    version: int,
    images: Path,
    *,
    check: CheckConfig,
    watch: WatchConfig,
    accept_new_space: bool,
    accept_bridge: bool,
    judged: Callable[[Report], None],
    say: Say,
) -> int:
    """See `Rollout.run`."""
    entry = steps.entry()
    promoted = entry.labels.get(STABLE) == version
    if promoted and PREVIOUS not in entry.labels:
        say(f"version {version} is stable already")
        return 0
    if not promoted and (left := entry.labels.get(PREVIOUS)) is not None:
        say(f"retire: version {left}, kept from the last rollout")
        steps.retire(left)
    with _undone_on_failure(steps, version, say):
        if promoted:
            say(f"version {version} is promoted already: going on with the watch")
        else:
            say(f"start: version {version}")
            steps.start(version)
            say("check: stable and canary")
            report = steps.check(images, check)
            judged(report)
            _tell(report, say)
            if not _accepted(report, accept_new_space, accept_bridge):
                _undo(steps, version, say)
                return report.exit_status
            say(f"promote: version {version}")
            # The check has measured the space, so the declared one does not matter.
            steps.promote(version, accept_new_space=True)
        fault = steps.watch(images, watch)
        if fault:
            say(f"watch: {fault}")
            _undo(steps, version, say)
            return 1
    say(f"done: version {version} is stable, the old one is loaded for a rollback")
    return 0


def _accepted(report: Report, accept_new_space: bool, accept_bridge: bool) -> bool:
    verdict = report.verdict
    if verdict.space == "new" and verdict.fit:
        return accept_new_space or (accept_bridge and verdict.bridge is not None)
    return report.exit_status == 0


def _tell(report: Report, say: Say) -> None:
    say(f"check: {report.verdict.outcome}: {report.verdict.text}")
    stable, canary = report.pairs.stable, report.pairs.canary
    if None in (stable.vector_space, canary.vector_space):
        return
    if stable.vector_space != canary.vector_space:
        bridged = stable.vector_space in canary.bridges
        say(
            f"check: the manifests name two vector spaces: {stable.vector_space} (version "
            f"{stable.version}) and {canary.vector_space} (version {canary.version}); clients "
            "that ask for the first will "
            + ("be answered through the bridge" if bridged else "refuse the second")
        )


@contextmanager
def _undone_on_failure(steps: Steps, version: int, say: Say) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        try:
            _undo(steps, version, say)
        except RolloutError as second:
            raise RolloutError(f"{error}; and the rollback failed: {second}") from error
        raise
    except BaseException:
        say("interrupted")
        try:
            _undo(steps, version, say)
        except RolloutError as second:
            say(f"the rollback failed: {second}")
        raise


def _undo(steps: Steps, version: int, say: Say) -> None:
    """Roll back and unload `version`, whatever step it has reached."""
    entry = steps.entry()
    if version not in (entry.versions or ()):
        say(f"version {version} is not loaded: nothing to roll back")
        return
    say(f"rollback: from version {version}")
    if version in entry.labels.values():
        if entry.labels.get(STABLE) == version and PREVIOUS not in entry.labels:
            raise RefusedError(f"version {version} is stable, and no other one is kept")
        steps.rollback()
    steps.retire(version)
    say(f"rolled back: version {version} is unloaded")
