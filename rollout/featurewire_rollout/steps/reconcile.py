"""Write the config and converge the replicas to it, one operator at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from featurewire_rollout.decide.config_mismatch import config_mismatch
from featurewire_rollout.decide.entry import Entry
from featurewire_rollout.decide.plan import LABELS, Goal
from featurewire_rollout.decide.view import FleetView
from featurewire_rollout.errors import FleetError, RefusedError, RolloutError
from featurewire_rollout.fleet.converge import FleetApi, Patience, Say, converge, wait_for_replicas
from featurewire_rollout.steps.audit import Audit, owner
from featurewire_rollout.store.config_store import ConfigStore
from featurewire_rollout.store.legal_config import check_base_paths, check_models
from featurewire_rollout.store.model_config import edit, entry_of, parse


class Reconciler:
    """The config's entry of one model, and the replicas that serve it."""

    def __init__(
        self,
        store: ConfigStore | None,
        fleet: FleetApi,
        *,
        model: str,
        patience: Patience,
        say: Say,
        audit: Audit,
        trust_config: bool = False,
    ) -> None:
        self._given_store = store
        self._fleet = fleet
        self._model = model
        self._patience = patience
        self._say = say
        self._audit = audit
        self._trust = trust_config
        self._depth = 0

    @contextmanager
    def step(self, command: str, version: int | None = None) -> Iterator[None]:
        """Lock out other operators, and audit the step. Steps may nest.

        Raises `ConflictError` if another operator holds the lock.
        """
        about = {"command": command, "model": self._model, "version": version}
        with ExitStack() as stack:
            if not self._depth:
                stack.enter_context(self._store.lock(owner(f"{command} of {self._model}")))
            self._depth += 1
            stack.callback(self._leave)
            self._audit.record(**about, step="begin")
            try:
                yield
            except BaseException as error:
                reason = str(error) if isinstance(error, Exception) else "interrupted"
                self.note(**about, step="failed", error=reason)
                raise
            self.note(**about, step="done")

    def _leave(self) -> None:
        self._depth -= 1

    def note(self, **fields: Any) -> None:
        """Write a line to the audit. A failure is reported and does not stop the rollout."""
        try:
            self._audit.record(**fields)
        except RolloutError as error:
            self._say(str(error))

    @property
    def _store(self) -> ConfigStore:
        if self._given_store is None:
            raise RefusedError("this step needs the config: --config FILE")
        return self._given_store

    def read(self) -> tuple[str, Entry]:
        """The config's text and its entry of the model. Raises `ConfigFileError`."""
        text = self._store.read()
        return text, self.entry(text)

    def entry(self, text: str) -> Entry:
        name = self._store.name
        return entry_of(parse(text, name), self._model, name)

    def wait_for_replicas(self, entry: Entry) -> FleetView:
        """Wait until enough replicas answer, and return their state with manifests.

        Raises `FleetError`, and `RefusedError` as `check_config` does.
        """
        fleet = wait_for_replicas(self._fleet, self._patience, self._say, labels=_labels(entry))
        self._check_config(entry, fleet)
        return fleet

    def check_config(self, entry: Entry) -> None:
        """Raises `RefusedError` if the replicas do not seem to read this config.

        Does not wait for unreachable replicas, because a rollback cannot wait.
        """
        self._check_config(entry, self._fleet.read_state(labels=_labels(entry)))

    def _check_config(self, entry: Entry, fleet: FleetView) -> None:
        fault = config_mismatch(entry, fleet, self._store.name)
        if fault and not self._trust:
            raise RefusedError(f"{fault}; --trust-config continues anyway")

    def apply(self, text: str, goal: Goal, *, loading: int | None = None) -> str:
        """Write the config of `goal`, converge every replica to it, and return the new text.

        Refuses a config after which a server would accept no other one. `loading`: see `converge`.
        Raises `ConfigFileError` and `ConflictError` if nothing was changed, and `FleetError` if
        the config has the new state.
        """
        store, new = self._store, text
        before = parse(text, store.name)
        check_models(before, store.name)
        if not self._trust:
            check_base_paths(before, store.name)
        if not goal.matches(self.entry(text)):
            new = edit(
                text, self._model, versions=goal.versions, labels=goal.labels, name=store.name
            )
            store.write(new, expected=text)
            self.note(step="config", versions=list(goal.versions), labels=dict(goal.labels))
        config = parse(new, store.name)
        converge(self._fleet, config, goal, self._patience, self._say, loading=loading)
        return new

    def changed(self, text: str) -> bool:
        """Whether the config differs from `text`, or cannot be read."""
        try:
            return self._store.read() != text
        except RolloutError:
            return True

    def put_back(self, before: str, version: int, current: int) -> str:
        """Undo a failed start of `version`. Returns a sentence about the new state."""
        store, entry = self._store, self.entry(before)
        if entry.versions is not None and version in entry.versions:  # left by an interrupted start
            labels = {k: v for k, v in entry.labels.items() if v != version}
            versions = [each for each in entry.versions if each != version]
            before = edit(before, self._model, versions=versions, labels=labels, name=store.name)
        old = self.entry(before)
        # Under another policy the servers choose the versions to load.
        unloaded = (version,) if old.versions is not None else ()
        goal = Goal(
            versions=old.versions or (),
            labels=old.labels,
            loaded=(current,),
            unloaded=unloaded,
        )
        try:
            now = store.read()
            if now != before:
                store.write(before, expected=now)
                self.note(step="config", versions=list(goal.versions), labels=dict(goal.labels))
        except RolloutError as error:
            return f"the old config cannot be restored: {error}; `status` shows the next command"
        try:
            converge(self._fleet, parse(before, store.name), goal, self._patience, self._say)
        except FleetError as error:
            return f"the config is restored, but not every replica has taken it: {error}"
        return f"restored the old config: version {current} is served"


def _labels(entry: Entry) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*LABELS, *entry.labels]))
