"""The steps of a rollout: each reads the config and the replicas, and moves both to a new state."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from featurewire import FeaturewireError, TLSConfig
from featurewire_rollout import preflight
from featurewire_rollout.audit import Audit, owner
from featurewire_rollout.errors import FleetError, RefusedError, RolloutError
from featurewire_rollout.fleet import Fleet
from featurewire_rollout.model_config import Entry, edit, entry_of, parse
from featurewire_rollout.phase import Phase, phase_of
from featurewire_rollout.planner import (
    CANARY,
    LABELS,
    PREVIOUS,
    STABLE,
    Goal,
    as_goal,
    check_space,
    plan_promote,
    plan_retire,
    plan_rollback,
    plan_start,
)
from featurewire_rollout.settle import Patience, Say, gather, settle
from featurewire_rollout.store import ConfigStore, open_store
from featurewire_rollout.trial import Trial
from featurewire_rollout.view import FleetView
from featurewire_rollout.watch import WatchConfig

if TYPE_CHECKING:
    from featurewire_rollout.check import Report

__all__ = ["Rollout", "RolloutConfig", "Status"]


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """Which config, which replicas, which model. Times are seconds."""

    servers: Sequence[str]
    """`host:port`s; a name stands for all addresses that it resolves to."""
    model: str
    config: str | None = None
    """A path, or `configmap:NAMESPACE/NAME/KEY`. None: `status` only."""
    timeout: float = 300.0
    """For replicas to answer, to load a version or to show a label, each."""
    allow_missing: int = 0
    """So many replicas may give no answer."""
    reload: bool = True
    """Reload over RPC, besides what replicas read by themselves."""
    base_path: str | None = None
    """Where this machine sees the model's versions. None: where the config says."""
    memory_check: bool = True
    audit: str | os.PathLike[str] | None = None
    """A file that gets one JSON line a step."""
    tls: TLSConfig | None = None
    token: str | None = None


@dataclass(frozen=True, kw_only=True)
class Status:
    """The config's entry, the replicas, and what follows from both."""

    model: str
    entry: Entry | None
    fleet: FleetView
    phase: Phase


class Rollout:
    """Moves the replicas of one model from version to version. A context manager.

    It keeps no state: any step can be run again, and by another process. Steps raise
    `RolloutError`.
    """

    def __init__(
        self, config: RolloutConfig, *, say: Say = lambda text: None, fleet: Fleet | None = None
    ) -> None:
        """`say` is told what happens, a line at a time."""
        self._config = config
        self._say = say
        self._store: ConfigStore | None = (
            None if config.config is None else open_store(config.config)
        )
        self._audit = Audit(config.audit)
        self._patience = Patience(
            seconds=config.timeout, allow_missing=config.allow_missing, reload=config.reload
        )
        self._fleet = fleet or Fleet(
            config.servers, model=config.model, tls=config.tls, token=config.token
        )

    def status(self) -> Status:
        """Where the rollout is. Replicas that give no answer are in it, with the reason."""
        entry = None
        if self._store is not None:
            entry = self._entry(self._store.read())
        labels = dict.fromkeys([*LABELS, *(entry.labels if entry is not None else ())])
        fleet = self._fleet.look(labels=tuple(labels), manifests=True)
        return Status(
            model=self._config.model, entry=entry, fleet=fleet, phase=phase_of(entry, fleet)
        )

    def start(self, version: int) -> Status:
        """Load `version` beside the current one on every replica, then label it `canary`.

        When a replica does not come to it, the config becomes what it was, and `FleetError` says
        which replica and why.
        """
        with self._step("start", version) as store:
            text = store.read()
            entry = self._entry(text)
            fleet = gather(self._fleet, self._patience, self._say, labels=tuple(entry.labels))
            goal = plan_start(entry, fleet, version)
            current = goal.labels[STABLE]
            self._preflight(entry, fleet, version, current)
            self._say(f"loading version {version} beside {current}")
            try:
                loaded = self._apply(store, text, goal, loading=version)
                view = self._fleet.look(manifests=True)
                if len(view.spaces(version)) > 1:
                    raise FleetError(
                        f"the replicas serve different vector spaces as version {version}; give "
                        "every one the same files"
                    )
            except FleetError as error:
                raise FleetError(
                    f"{error}; {self._put_back(store, text, entry, version, current)}"
                ) from error
            self._say(f"version {version} is AVAILABLE; labelling it canary")
            self._apply(store, loaded, goal.with_labels(canary=version))
        return self.status()

    def promote(self, version: int | None = None, *, accept_new_space: bool = False) -> Status:
        """Move `stable` to the version on trial; the old one stays loaded.

        Raises `SpaceError` when the vectors of the two cannot be compared, as far as is known.
        """
        with self._step("promote", version) as store:
            text = store.read()
            entry = self._entry(text)
            goal = plan_promote(entry, version)
            if not goal.matches(entry):
                # A label moves only to what is AVAILABLE everywhere.
                self._apply(store, text, as_goal(entry))
                fleet = gather(self._fleet, self._patience, self._say, labels=())
                old, new = goal.labels[PREVIOUS], goal.labels[STABLE]
                self._say(check_space(fleet, old, new, accept=accept_new_space))
                self._say(f"moving stable from {old} to {new}")
            self._apply(store, text, goal)
        return self.status()

    def rollback(self, version: int | None = None) -> Status:
        """Move `stable` and `canary` back to the old version, which is loaded still."""
        with self._step("rollback", version) as store:
            text = store.read()
            goal = plan_rollback(self._entry(text), version)
            self._say(f"stable and canary go to {goal.labels[STABLE]}")
            self._apply(store, text, goal)
        return self.status()

    def retire(self, version: int | None = None) -> Status:
        """Unload what no label but `previous` points to."""
        with self._step("retire", version) as store:
            text = store.read()
            entry = self._entry(text)
            goal = plan_retire(entry, version)
            # First the labels: a replica that still has an old one would lose what it points to.
            kept = {k: v for k, v in entry.labels.items() if k in goal.labels}
            self._apply(store, text, Goal(versions=as_goal(entry).versions, labels=kept))
            if goal.unloaded:
                self._say(f"unloading {', '.join(map(str, goal.unloaded))}")
            text = store.read()
            self._apply(store, text, goal)
        return self.status()

    def check(self, images: Path, **options: Any) -> Report:
        """The same images through `stable` and `canary`; options as for `Trial.check`.

        Changes nothing. Raises `RolloutError` when too few replicas answer.
        """
        return self._trial().check(images, **options)

    def run(
        self,
        version: int,
        images: Path,
        *,
        watch: WatchConfig = WatchConfig(),  # noqa: B008
        accept_new_space: bool = False,
        judged: Callable[[Report], None] = lambda report: None,
        **options: Any,
    ) -> int:
        """Start, check, promote, watch; roll back and unload `version` when it does not pass.

        Returns 0 (promoted, the old version is loaded for a rollback), 1 (rolled back: the check
        or the watch failed) or 3 (rolled back: the check was inconclusive). `judged` gets the
        report of the check. When a step raises, the new version is rolled back as well.
        """
        entry = self.status().entry
        assert entry is not None, "run needs a config"
        if entry.labels.get(STABLE) == version:
            self._say(f"version {version} is stable already")
            return 0
        if (left := entry.labels.get(PREVIOUS)) is not None:
            self._say(f"retire: version {left}, kept from the last rollout")
            self.retire(left)
        self._say(f"start: version {version}")
        self.start(version)
        try:
            self._say("check: stable and canary")
            report = self.check(images, **options)
            judged(report)
            self._say(f"check: {report.verdict.outcome}: {report.verdict.text}")
            accepted = accept_new_space and report.verdict.space == "new"
            if report.exit_status and not accepted:
                self._undo(version)
                return report.exit_status
            self._say(f"promote: version {version}")
            # A check that passed has measured what the digests only declare.
            self.promote(version, accept_new_space=True)
            fault = self._trial().watch(images, watch, self._say)
            if fault:
                self._say(f"watch: {fault}")
                self._undo(version)
                return 1
        except FeaturewireError:
            self._undo(version)
            raise
        self._say(f"done: version {version} is stable, the old one is loaded for a rollback")
        return 0

    def _undo(self, version: int) -> None:
        self._say(f"rollback: from version {version}")
        self.rollback()
        self.retire(version)
        self._say(f"rolled back: version {version} is unloaded")

    def _trial(self) -> Trial:
        labels = (STABLE, CANARY)
        gather(self._fleet, self._patience, self._say, labels=labels)
        config = self._config
        return Trial(self._fleet.targets(), model=config.model, tls=config.tls, token=config.token)

    def _preflight(self, entry: Entry, fleet: FleetView, version: int, current: int) -> None:
        base_path = self._config.base_path or entry.base_path
        directory = preflight.version_directory(base_path, version)
        if directory is None:
            self._say(f"files: {base_path} is not visible from here, so they were not checked")
            return
        manifest = preflight.check_files(directory)
        self._say(f"files: {directory} is whole")
        if self._config.memory_check and not all(version in r.available for r in fleet.reached):
            free = preflight.free_memory()
            self._say(preflight.check_memory(directory, self._fleet.targets(), free))
        self._say(preflight.compare_spaces(manifest, fleet, current))

    def _put_back(
        self, store: ConfigStore, before: str, entry: Entry, version: int, current: int
    ) -> str:
        """Undo a start that failed; says what the state is."""
        if entry.versions is not None and version in entry.versions:  # a start that was cut off
            labels = {k: v for k, v in entry.labels.items() if v != version}
            versions = [each for each in entry.versions if each != version]
            before = edit(
                before, self._config.model, versions=versions, labels=labels, name=store.name
            )
        old = self._entry(before)
        goal = Goal(versions=old.versions or (), labels=old.labels, loaded=(current,))
        now = store.read()
        if now != before:
            store.write(before, expected=now)
        try:
            settle(self._fleet, parse(before, store.name), goal, self._patience, self._say)
        except FleetError as error:
            return f"the config is as it was, but not every replica has taken it: {error}"
        return f"put back what was there: version {current} is served"

    def _apply(
        self, store: ConfigStore, text: str, goal: Goal, *, loading: int | None = None
    ) -> str:
        """Write the config of `goal`, bring every replica to it, and return the new text."""
        new = text
        if not goal.matches(self._entry(text)):
            new = edit(
                text,
                self._config.model,
                versions=goal.versions,
                labels=goal.labels,
                name=store.name,
            )
            store.write(new, expected=text)
            self._audit.record(
                step="config", versions=list(goal.versions), labels=dict(goal.labels)
            )
        config = parse(new, store.name)
        settle(self._fleet, config, goal, self._patience, self._say, loading=loading)
        return new

    def _entry(self, text: str) -> Entry:
        assert self._store is not None
        name = self._store.name
        return entry_of(parse(text, name), self._config.model, name)

    @contextmanager
    def _step(self, command: str, version: int | None) -> Iterator[ConfigStore]:
        if self._store is None:
            raise RefusedError(f"{command} needs the config: --config FILE")
        about = {"command": command, "model": self._config.model, "version": version}
        with self._store.lock(owner(f"{command} of {self._config.model}")):
            self._audit.record(**about, step="begin")
            try:
                yield self._store
            except RolloutError as error:
                self._audit.record(**about, step="failed", error=str(error))
                raise
            self._audit.record(**about, step="done")

    def close(self) -> None:
        self._fleet.close()

    def __enter__(self) -> Rollout:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
