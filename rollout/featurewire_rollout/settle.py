"""Brings replicas to what the config says, and waits until they are there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from featurewire import VersionStatus
from featurewire._tfs.model_server_config_pb2 import ModelServerConfig
from featurewire_rollout.errors import FleetError
from featurewire_rollout.planner import LABELS, Goal, shortfall
from featurewire_rollout.view import FleetView, ReplicaView

__all__ = ["LoadError", "Members", "Patience", "gather", "settle"]

POLL_SECONDS = 0.2
RELOAD_AGAIN = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds between reloads of a replica that is not there yet. They grow: a replica that polls a
file which is not the new one yet (a ConfigMap takes a minute) would load and unload in turns."""
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

    def send(self, fleet: Members, config: ModelServerConfig, lagging: Sequence[str]) -> None:
        now = time.monotonic()
        chosen = [address for address in lagging if self.due.get(address, 0.0) <= now]
        if not chosen:
            return
        refused = fleet.reload(config, chosen)
        for address in chosen:
            sent = self.count.get(address, 0)
            self.count[address] = sent + 1
            wait = RELOAD_AGAIN[min(sent, len(RELOAD_AGAIN) - 1)]
            self.due[address] = time.monotonic() + wait
            self.errors[address] = refused.get(address, "")

    def forget(self, address: str) -> None:
        """It went away: what comes back is another process."""
        self.count.pop(address, None)
        self.due.pop(address, None)
        self.errors.pop(address, None)


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


def settle(
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
    started = time.monotonic()
    reloads, told, steady = _Reloads(), dict[str, str](), _Steady(loading)
    labels = tuple(dict.fromkeys([*goal.labels, *LABELS]))
    first = fleet.look(labels=labels) if loading is not None else None
    before = _failures(first, loading) if first is not None else {}
    while True:
        view = fleet.look(labels=labels)
        lacking = {
            each.address: lacks for each in view.replicas if (lacks := shortfall(each, goal))
        }
        missing = {each.address for each in view.missing}
        if view.reached and lacking.keys() <= missing and len(missing) <= patience.allow_missing:
            return view
        steady.look(view, lacking)
        for address in missing:
            reloads.forget(address)
            before.pop(address, None)
        late = time.monotonic() - started > STALE_SECONDS
        for address, status in _failures(view, loading).items():
            if late or status != before.get(address):
                raise LoadError(
                    f"{address} cannot load version {loading}: "
                    f"{' '.join(status.error_message.split()) or status.error_code}"
                )
        if time.monotonic() >= deadline:
            raise FleetError(_complaint(lacking, reloads, steady, patience.seconds))
        for address, lacks in lacking.items():
            if address in missing and told.get(address) != lacks:
                say(f"waiting for {address}: {lacks}")
            told[address] = lacks
        if patience.reload:
            reloads.send(fleet, config, [each for each in lacking if each not in missing])
        time.sleep(POLL_SECONDS)


def _failures(view: FleetView, version: int | None) -> dict[str, VersionStatus]:
    found = {each.address: _status(each, version) for each in view.reached}
    return {address: status for address, status in found.items() if status and status.failed}


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
