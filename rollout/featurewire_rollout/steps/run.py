"""`run`: start, check, promote and watch a version; and back, whatever comes between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurewire_rollout.decide.plan import PREVIOUS, STABLE
from featurewire_rollout.errors import RefusedError, RolloutError
from featurewire_rollout.fleet.converge import Say
from featurewire_rollout.steps.watch import WatchConfig

if TYPE_CHECKING:
    from featurewire_rollout.check import Report
    from featurewire_rollout.steps.rollout import Rollout

__all__ = ["Pipeline"]


class Pipeline:
    """Takes a version all the way, by the steps of a `Rollout`."""

    def __init__(self, steps: Rollout, say: Say) -> None:
        self._steps = steps
        self._say = say

    def run(
        self,
        version: int,
        images: Path,
        *,
        watch: WatchConfig,
        accept_new_space: bool,
        accept_bridge: bool,
        judged: Callable[[Report], None],
        **options: Any,
    ) -> int:
        """See `Rollout.run`."""
        steps, entry = self._steps, self._steps.entry()
        promoted = entry.labels.get(STABLE) == version
        if promoted and PREVIOUS not in entry.labels:
            self._say(f"version {version} is stable already")
            return 0
        if not promoted and (left := entry.labels.get(PREVIOUS)) is not None:
            self._say(f"retire: version {left}, kept from the last rollout")
            steps.retire(left)
        with self._back_on_failure(version):
            if promoted:
                self._say(f"version {version} is promoted already: going on with the watch")
            else:
                self._say(f"start: version {version}")
                steps.start(version)
                status = self._judge(images, judged, (accept_new_space, accept_bridge), options)
                if status:
                    self._undo(version)
                    return status
                self._say(f"promote: version {version}")
                # A check that passed has measured what digests only declare.
                steps.promote(version, accept_new_space=True)
            fault = steps.watch(images, watch)
            if fault:
                self._say(f"watch: {fault}")
                self._undo(version)
                return 1
        self._say(f"done: version {version} is stable, the old one is loaded for a rollback")
        return 0

    def _judge(
        self,
        images: Path,
        judged: Callable[[Report], None],
        accept: tuple[bool, bool],
        options: dict[str, Any],
    ) -> int:
        """0, or the status that the run ends with. `accept`: a new space, one with a bridge."""
        self._say("check: stable and canary")
        report = self._steps.check(images, **options)
        judged(report)
        self._say(f"check: {report.verdict.outcome}: {report.verdict.text}")
        stable, canary = report.pairs.stable, report.pairs.canary
        bridged = stable.vector_space in canary.bridges
        if None not in (stable.vector_space, canary.vector_space) and (
            stable.vector_space != canary.vector_space
        ):
            self._say(
                f"check: the manifests name two vector spaces: {stable.vector_space} (version "
                f"{stable.version}) and {canary.vector_space} (version {canary.version}); clients "
                "that ask for the first will "
                + ("be answered through the bridge" if bridged else "refuse the second")
            )
        verdict = report.verdict
        accepted = accept[0] or (accept[1] and verdict.bridge is not None)
        return 0 if accepted and verdict.space == "new" and verdict.fit else report.exit_status

    @contextmanager
    def _back_on_failure(self, version: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            try:
                self._undo(version)
            except RolloutError as second:
                raise RolloutError(f"{error}; and the rollback failed: {second}") from error
            raise
        except BaseException:
            self._say("interrupted")
            try:
                self._undo(version)
            except RolloutError as second:
                self._say(f"the rollback failed: {second}")
            raise

    def _undo(self, version: int) -> None:
        """From wherever `version` has come to."""
        entry = self._steps.entry()
        if version not in (entry.versions or ()):
            self._say(f"version {version} is not loaded: nothing to roll back")
            return
        self._say(f"rollback: from version {version}")
        if version in entry.labels.values():
            if entry.labels.get(STABLE) == version and PREVIOUS not in entry.labels:
                raise RefusedError(f"version {version} is stable, and no other one is kept")
            self._steps.rollback()
        self._steps.retire(version)
        self._say(f"rolled back: version {version} is unloaded")
