"""Brings replicas to what the config says, and waits until they are there."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from featurewire import VersionStatus
from featurewire._tfs.model_server_config_pb2 import ModelServerConfig
from featurewire_rollout.decide.plan import LABELS, Goal, shortfall
from featurewire_rollout.decide.view import FleetView, ReplicaView
from featurewire_rollout.errors import FleetError
from featurewire_rollout.fleet.fleet import UNANSWERED

__all__ = ["LoadError", "Members", "Patience", "converge", "gather"]

POLL_SECONDS = 0.2
RELOAD_INTERVALS_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds between reloads of a replica that is not there yet. They grow: a replica that polls a
file which is not the new one yet (a ConfigMap takes a minute) would load and unload in turns."""
STUCK_ERROR = re.compile(
    r"Illegal setting (both|neither) model_type|Illegal to change a model's platform"
)
"""How TensorFlow Serving refuses every config after it was given one with a mistake. The config
that is sent here was checked, so it is not the one at fault."""
MAX_UNANSWERED_RELOADS = 2
"""So many in a row, and a replica is taken to be stuck in an earlier one."""
STALE_SECONDS = 5.0
"""How long an error that was there before may still be shown after a reload."""

Say = Callable[[str], None]


class Members(Protocol):
    """What is needed of a `Fleet`."""

    def look(self, *, labels: Sequence[str] = (), manifests: bool = False) -> FleetView: ...

    def reload(self, config: ModelServerConfig, addresses: Sequence[str]) -> dict[str, str]: ...


class LoadError(FleetError):
    """A replica says that it cannot load the version."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait, and for whom."""

    seconds: float = 300.0
    allow_missing: int = 0
    """So many replicas may give no answer."""
    reload: bool = True
    """Reload over RPC, besides letting replicas read the config themselves."""


def gather(fleet: Members, patience: Patience, say: Say, *, labels: Sequence[str]) -> FleetView:
    """What the replicas serve, once enough of them answer. Raises `FleetError`."""
    deadline = time.monotonic() + patience.seconds
    told: set[str] = set()
    while True:
        view = fleet.look(labels=labels, manifests=True)
        if view.reached and len(view.missing) <= patience.allow_missing:
            return view
        missing = [f"{each.address}: cannot be reached ({each.error})" for each in view.missing]
        if time.monotonic() >= deadline:
            raise FleetError(
                f"{'; '.join(missing)}; start them, or go on without them: --allow-missing "
                f"{len(missing)}"
            )
        for text in missing:
            address = text.partition(": ")[0]
            if address not in told:
                told.add(address)
                say(f"waiting for {text}")
        time.sleep(POLL_SECONDS)


@dataclass
class _Reloads:
    """When each replica was told last, and what it said."""

    count: dict[str, int] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    unanswered: dict[str, int] = field(default_factory=dict)
    """Reloads in a row that came to their deadline."""

    def send(self, fleet: Members, config: ModelServerConfig, lagging: Sequence[str]) -> None:
        """Tell those that are due. Raises `FleetError` where only stuck replicas are left."""
        stuck = [text for address in lagging if (text := self._stuck(address))]
        if stuck and len(stuck) == len(lagging):
            raise FleetError("; ".join(stuck))
        now = time.monotonic()
        chosen = [address for address in lagging if self.due.get(address, 0.0) <= now]
        if not chosen:
            return
        refused = fleet.reload(config, chosen)
        for address in chosen:
            sent = self.count.get(address, 0)
            self.count[address] = sent + 1
            wait = RELOAD_INTERVALS_SECONDS[min(sent, len(RELOAD_INTERVALS_SECONDS) - 1)]
            self.due[address] = time.monotonic() + wait
            self.errors[address] = said = refused.get(address, "")
            again = self.unanswered.get(address, 0) + 1
            self.unanswered[address] = again if said == UNANSWERED else 0

    def _stuck(self, address: str) -> str:
        """Why a replica takes no config until it is restarted, in words; empty: it may take one."""
        said = self.errors.get(address, "")
        if STUCK_ERROR.search(said):
            return (
                f"{address} refuses every config, because it was given one with a mistake before "
                f"({said}): restart the replica"
            )
        if self.unanswered.get(address, 0) >= MAX_UNANSWERED_RELOADS:
            return (
                f"{address} does not answer reloads ({said}), probably because an earlier one "
                "named a base path that does not exist: restart the replica"
            )
        return ""

    def forget(self, missing: Sequence[str]) -> None:
        """Forget replicas that went away: another process answers when they are back."""
        for address in missing:
            self.count.pop(address, None)
            self.due.pop(address, None)
            self.errors.pop(address, None)
            self.unanswered.pop(address, None)


class _Steady:
    """Which replicas came to the goal, or began to load the version, and went back."""

    def __init__(self, loading: int | None) -> None:
        self._loading = loading
        self._came: set[str] = set()
        self.went_back: set[str] = set()

    def look(self, view: FleetView, lacking: Mapping[str, str]) -> None:
        for replica in view.replicas:
            status = _status(replica, self._loading)
            if not replica.reached:  # it may come back as another process
                self._came.discard(replica.address)
            elif replica.address not in lacking or (
                status is not None and status.state in ("LOADING", "AVAILABLE")
            ):
                self._came.add(replica.address)
            elif replica.address in self._came and not (status is not None and status.failed):
                self.went_back.add(replica.address)


class _Failures:
    """Watches for replicas that report that they cannot load a version."""

    def __init__(self, version: int, first: FleetView) -> None:
        """`first`: the fleet before anything was reloaded. Its failures may still be shown."""
        self._version = version
        self._before = self._failed(first)
        self._stale_until = time.monotonic() + STALE_SECONDS

    def look(self, view: FleetView) -> None:
        """Raise `LoadError` for the first failure that is not left over from before."""
        for replica in view.missing:
            self._before.pop(replica.address, None)
        stale = self._before if time.monotonic() <= self._stale_until else {}
        for address, status in self._failed(view).items():
            if status != stale.get(address):
                raise LoadError(
                    f"{address} cannot load version {self._version}: "
                    f"{' '.join(status.error_message.split()) or status.error_code}"
                )

    def _failed(self, view: FleetView) -> dict[str, VersionStatus]:
        found = {each.address: _status(each, self._version) for each in view.reached}
        return {address: status for address, status in found.items() if status and status.failed}


def converge(
    fleet: Members,
    config: ModelServerConfig,
    goal: Goal,
    patience: Patience,
    say: Say,
    *,
    loading: int | None = None,
) -> FleetView:
    """Wait until every replica serves `goal`, which `config` says; returns what was seen last.

    `loading`: give up as soon as a replica says that it cannot load this version. Raises
    `LoadError`, and `FleetError` when the time is up; both name replicas and reasons.
    """
    deadline = time.monotonic() + patience.seconds
    labels = tuple(dict.fromkeys([*goal.labels, *LABELS]))
    reloads, steady, told = _Reloads(), _Steady(loading), dict[str, str]()
    failures = None if loading is None else _Failures(loading, fleet.look(labels=labels))
    while True:
        view = fleet.look(labels=labels)
        lacks = {each.address: lack for each in view.replicas if (lack := shortfall(each, goal))}
        missing = [each.address for each in view.missing]
        behind = [address for address in lacks if address not in missing]
        if view.reached and not behind and len(missing) <= patience.allow_missing:
            return view
        steady.look(view, lacks)
        reloads.forget(missing)
        if failures is not None:
            failures.look(view)
        if time.monotonic() >= deadline:
            raise FleetError(_complaint(lacks, reloads, steady, patience.seconds))
        for address in missing:
            if told.get(address) != lacks[address]:
                say(f"waiting for {address}: {lacks[address]}")
        told |= lacks
        if patience.reload:
            reloads.send(fleet, config, behind)
        time.sleep(POLL_SECONDS)


def _status(replica: ReplicaView, version: int | None) -> VersionStatus | None:
    return None if version is None else replica.versions.get(version)


def _complaint(lacking: dict[str, str], reloads: _Reloads, steady: _Steady, seconds: float) -> str:
    parts = []
    for address, lacks in lacking.items():
        text = f"{address}: {lacks}"
        if refused := reloads.errors.get(address, ""):
            text += f" (its reload said: {refused})"
        elif address in steady.went_back:
            text += " (it had come there and went back: it reads another config than --config)"
        parts.append(text)
    return f"not there after {seconds:g} s: {'; '.join(parts)}"
