"""The steps of a rollout. Each reads the config and the replicas, and moves both to a new state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

from featurewire import ChannelConfig, Client
from featurewire_rollout.check import CheckConfig, Report, Source, compare
from featurewire_rollout.check.pull import images_in
from featurewire_rollout.config import RolloutConfig
from featurewire_rollout.decide.entry import Entry
from featurewire_rollout.decide.phase import Status, phase_of
from featurewire_rollout.decide.plan import (
    CANARY,
    LABELS,
    PREVIOUS,
    STABLE,
    Goal,
    as_goal,
    kept_by_labels,
    plan_promote,
    plan_retire,
    plan_rollback,
    plan_start,
)
from featurewire_rollout.decide.spaces import check_space, compare_spaces
from featurewire_rollout.decide.view import FleetView
from featurewire_rollout.errors import ConfigFileError, FleetError
from featurewire_rollout.fleet.converge import Patience, Say, wait_for_replicas
from featurewire_rollout.fleet.fleet import Fleet
from featurewire_rollout.steps import preflight
from featurewire_rollout.steps.audit import Audit
from featurewire_rollout.steps.reconcile import Reconciler
from featurewire_rollout.steps.run import run
from featurewire_rollout.steps.watch import PROBE_IMAGES, WatchConfig, watch
from featurewire_rollout.store.config_store import open_store


class Rollout:
    """Moves the replicas of one model from version to version. A context manager.

    The state is in the config, so any step can be repeated, also by another process. Steps raise
    `RolloutError`.
    """

    def __init__(
        self, config: RolloutConfig, *, say: Say = lambda _text: None, fleet: Fleet | None = None
    ) -> None:
        """`say` receives one line of progress per call."""
        self._config = config
        self._say = say
        self._store = None if config.config is None else open_store(config.config)
        self._patience = Patience(
            seconds=config.timeout, allow_missing=config.allow_missing, reload=config.reload
        )
        self._fleet = fleet or Fleet(
            config.servers, model=config.model, tls=config.tls, token=config.token
        )
        self._reconciler = Reconciler(
            self._store,
            self._fleet,
            model=config.model,
            patience=self._patience,
            say=say,
            audit=Audit(config.audit),
            trust_config=config.trust_config,
        )

    def status(self) -> Status:
        """The phase of the rollout and the state of all replicas, including unreachable ones."""
        entry = None if self._store is None else self.entry()
        labels = dict.fromkeys([*LABELS, *(entry.labels if entry is not None else ())])
        fleet = self._fleet.read_state(labels=tuple(labels), manifests=True)
        name = "" if self._store is None else self._store.name
        return Status(
            model=self._config.model,
            entry=entry,
            fleet=fleet,
            phase=phase_of(entry, fleet, config=name),
        )

    def entry(self) -> Entry:
        """The config's entry of the model."""
        return self._reconciler.read()[1]

    def start(self, version: int) -> Status:
        """Load `version` next to the current one on every replica, then label it `canary`.

        Restores the config if a replica fails to load it or the start is interrupted. A
        `FleetError` names the replica and the reason.
        """
        with self._reconciler.step("start", version):
            text, entry = self._reconciler.read()
            fleet = self._reconciler.wait_for_replicas(entry)
            goal = plan_start(entry, fleet, version)
            current = goal.labels[STABLE]
            self._preflight(entry, fleet, version, current)
            self._say(f"loading version {version} next to {current}")
            try:
                self._load(text, goal, version)
            except FleetError as error:
                state = self._reconciler.put_back(text, version, current)
                raise FleetError(f"{error}; {state}") from error
            except (ConfigFileError, KeyboardInterrupt):
                # Keep a version that was on trial before: this start only repeated an old one.
                begun = version not in (entry.versions or ()) and self._reconciler.changed(text)
                if begun:
                    self._say(self._reconciler.put_back(text, version, current))
                raise
        return self.status()

    def _load(self, text: str, goal: Goal, version: int) -> None:
        text = self._reconciler.apply(text, goal, loading=version)
        if len(self._fleet.read_state(manifests=True).spaces(version)) > 1:
            raise FleetError(
                f"the replicas serve different vector spaces as version {version}; give every one "
                "the same files"
            )
        self._say(f"version {version} is AVAILABLE; labelling it canary")
        self._reconciler.apply(text, goal.with_labels(**{CANARY: version}))

    def promote(
        self,
        version: int | None = None,
        *,
        accept_new_space: bool = False,
        accept_bridge: bool = False,
    ) -> Status:
        """Move `stable` to the version on trial. The old version stays loaded.

        Raises `SpaceError` if the manifests do not declare the same vector space, unless
        `accept_new_space` is true, or `accept_bridge` is true and the new version has a bridge to
        the old space.
        """
        with self._reconciler.step("promote", version):
            text, entry = self._reconciler.read()
            goal = plan_promote(entry, version)
            self._reconciler.check_config(entry)
            if not goal.matches(entry):
                # A label may only move to a version that is AVAILABLE everywhere.
                self._reconciler.apply(text, as_goal(entry))
                fleet = self._reconciler.wait_for_replicas(entry)
                old, new = goal.labels[PREVIOUS], goal.labels[STABLE]
                accept = {"accept_new_space": accept_new_space, "accept_bridge": accept_bridge}
                self._say(check_space(fleet, old, new, **accept))
                self._say(f"moving stable from {old} to {new}")
            self._reconciler.apply(text, goal)
        return self.status()

    def rollback(self, version: int | None = None) -> Status:
        """Move `stable` and `canary` back to the old version, which is still loaded."""
        with self._reconciler.step("rollback", version):
            text, entry = self._reconciler.read()
            goal = plan_rollback(entry, version)
            self._reconciler.check_config(entry)
            self._say(f"stable and canary go to {goal.labels[STABLE]}")
            self._reconciler.apply(text, goal)
        return self.status()

    def retire(self, version: int | None = None) -> Status:
        """Remove the label `previous`, and unload the versions without a label."""
        with self._reconciler.step("retire", version):
            text, entry = self._reconciler.read()
            goal = plan_retire(entry, version)
            self._reconciler.check_config(entry)
            # Remove labels first: a replica must not have a label on an unloaded version.
            kept = {k: v for k, v in entry.labels.items() if k in goal.labels}
            text = self._reconciler.apply(text, Goal(versions=as_goal(entry).versions, labels=kept))
            if goal.unloaded:
                self._say(f"unloading {', '.join(map(str, goal.unloaded))}")
            for line in kept_by_labels(goal) or (
                [] if goal.unloaded else ["there is nothing to unload"]
            ):
                self._say(line)
            self._reconciler.apply(text, goal)
        return self.status()

    def check(
        self,
        images: Path,
        config: CheckConfig = CheckConfig(),  # noqa: B008
    ) -> Report:
        """Compare the vectors that `stable` and `canary` make of the same images.

        Changes nothing. Raises `RolloutError` if too few replicas answer, and the errors of
        `compare`.
        """
        with self._clients(STABLE, CANARY) as (stable, canary):
            report = compare(
                Source(client=stable, name=STABLE),
                Source(client=canary, name=CANARY),
                images,
                config,
            )
        self._reconciler.note(
            command="check",
            model=self._config.model,
            version=report.pairs.canary.version,
            step="done",
            outcome=report.verdict.outcome,
            verdict=report.verdict.text,
        )
        return report

    def watch(self, images: Path, config: WatchConfig) -> str:
        """Probe `stable` and `previous`. Returns why `stable` must go back, or an empty text."""
        with self._clients(STABLE, PREVIOUS) as (stable, previous):
            contents = [path.read_bytes() for path in images_in(images)[:PROBE_IMAGES]]
            self._say(f"watching stable and previous for {config.seconds:g} s")
            return watch(stable, previous, contents, config)

    def run(
        self,
        version: int,
        images: Path,
        *,
        check: CheckConfig = CheckConfig(),  # noqa: B008
        watch: WatchConfig = WatchConfig(),  # noqa: B008
        accept_new_space: bool = False,
        accept_bridge: bool = False,
        judged: Callable[[Report], None] = lambda _report: None,
    ) -> int:
        """Start, check, promote and watch; roll back and unload `version` if it does not pass.

        Returns 0 (promoted, and the old version is loaded for a rollback), 1 (rolled back, because
        the check or the watch failed) or 3 (rolled back, because the check was inconclusive).
        `judged` receives the report of the check. Any exception, including an interrupt, also rolls
        the new version back. Other operators are locked out until the end.
        """
        with self._reconciler.step("run", version):
            return run(
                self,
                version,
                images,
                check=check,
                watch=watch,
                accept_new_space=accept_new_space,
                accept_bridge=accept_bridge,
                judged=judged,
                say=self._say,
            )

    @contextmanager
    def _clients(self, *labels: str) -> Iterator[list[Client]]:
        """Wait until enough replicas answer, and open a client over all replicas for each label."""
        wait_for_replicas(self._fleet, self._patience, self._say, labels=labels)
        config, targets = self._config, ",".join(self._fleet.targets())
        with ExitStack() as stack:
            yield [
                stack.enter_context(
                    Client(
                        targets,
                        model=config.model,
                        label=label,
                        tls=config.tls,
                        channel=ChannelConfig(token=config.token),
                    )
                )
                for label in labels
            ]

    def _preflight(self, entry: Entry, fleet: FleetView, version: int, current: int) -> None:
        base_path = self._config.base_path or entry.base_path
        directory = preflight.version_directory(base_path, version)
        if directory is None:
            self._say(f"files: {base_path} is not visible from here, so they were not checked")
            return
        manifest, found = preflight.check_files(directory)
        self._say(found)
        if self._config.memory_check and not all(version in r.available for r in fleet.reached):
            free = preflight.free_memory()
            self._say(preflight.check_memory(directory, self._fleet.targets(), free))
        self._say(compare_spaces(manifest, fleet, current))

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
