"""Reload the config on replicas, and wait until they have reached its state."""

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

POLL_SECONDS = 0.2
RELOAD_INTERVALS_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Intervals between reloads of a late replica. They grow, because a replica that polls an old file
(a ConfigMap takes a minute to arrive) would otherwise load and unload in a loop."""
STUCK_ERROR = re.compile(
    r"Illegal setting (both|neither) model_type|Illegal to change a model's platform"
)
"""How TensorFlow Serving refuses every config after it has received a broken one. The config sent
here was checked, so an earlier one was broken."""
MAX_UNANSWERED_RELOADS = 2
"""Number of consecutive timeouts after which a replica counts as stuck in an earlier reload."""
STALE_SECONDS = 5.0
"""How long a replica may still show an old error after a reload."""

Say = Callable[[str], None]


class FleetApi(Protocol):
    """The methods of a `Fleet` that are needed here."""

    def read_state(self, *, labels: Sequence[str] = (), manifests: bool = False) -> FleetView: ...

    def reload(self, config: ModelServerConfig, addresses: Sequence[str]) -> dict[str, str]: ...


class LoadError(FleetError):
    """A replica reports that it cannot load the version."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait, and for how many replicas."""

    seconds: float = 300.0
    allow_missing: int = 0
    """Maximum number of replicas that may be unreachable."""
    reload: bool = True
    """Also send the config to the replicas. False: wait until they have read it."""


def wait_for_replicas(
    fleet: FleetApi, patience: Patience, say: Say, *, labels: Sequence[str]
) -> FleetView:
    """Wait until enough replicas answer, and return their state. Raises `FleetError`."""
    deadline = time.monotonic() + patience.seconds
    reported: set[str] = set()
    while True:
        view = fleet.read_state(labels=labels, manifests=True)
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
            if address not in reported:
                reported.add(address)
                say(f"waiting for {text}")
        time.sleep(POLL_SECONDS)


@dataclass
class _Reloads:
    """The reloads that were sent to each replica, and their outcomes."""

    count: dict[str, int] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    unanswered: dict[str, int] = field(default_factory=dict)
    """Number of consecutive timeouts."""

    def send(self, fleet: FleetApi, config: ModelServerConfig, lagging: Sequence[str]) -> None:
        """Reload the replicas that are due. Raises `FleetError` if only stuck ones are left."""
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
        """Why a replica needs a restart before it takes a config; empty if it may take one."""
        said = self.errors.get(address, "")
        if STUCK_ERROR.search(said):
            return (
                f"{address} refuses every config, because an earlier one had a mistake ({said}): "
                "restart the replica"
            )
        if self.unanswered.get(address, 0) >= MAX_UNANSWERED_RELOADS:
            return (
                f"{address} does not answer reloads ({said}), probably because an earlier one "
                "named a base path that does not exist: restart the replica"
            )
        return ""

    def forget(self, missing: Sequence[str]) -> None:
        """Forget unreachable replicas, because another process will answer for them later."""
        for address in missing:
            self.count.pop(address, None)
            self.due.pop(address, None)
            self.errors.pop(address, None)
            self.unanswered.pop(address, None)


class _Progress:
    """Detects replicas that reach the goal, or start to load the version, and then go back."""

    def __init__(self, loading: int | None) -> None:
        self._loading = loading
        self._advanced: set[str] = set()
        self.went_back: set[str] = set()

    def update(self, view: FleetView, lacking: Mapping[str, str]) -> None:
        for replica in view.replicas:
            status = _status(replica, self._loading)
            if not replica.reached:  # another process may answer next
                self._advanced.discard(replica.address)
            elif replica.address not in lacking or (
                status is not None and status.state in ("LOADING", "AVAILABLE")
            ):
                self._advanced.add(replica.address)
            elif replica.address in self._advanced and not (status is not None and status.failed):
                self.went_back.add(replica.address)


class _Failures:
    """Watches for replicas that report that they cannot load a version."""

    def __init__(self, version: int, first: FleetView) -> None:
        """`first`: the fleet before anything was reloaded. Its failures may still be shown."""
        self._version = version
        self._before = self._failed(first)
        self._stale_until = time.monotonic() + STALE_SECONDS

    def check(self, view: FleetView) -> None:
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
    fleet: FleetApi,
    config: ModelServerConfig,
    goal: Goal,
    patience: Patience,
    say: Say,
    *,
    loading: int | None = None,
) -> FleetView:
    """Reload `config` and wait until every replica has reached `goal`; returns the last state.

    `loading` is a version: give up as soon as a replica reports that it cannot load it. Raises
    `LoadError`, and `FleetError` after the timeout. Both name replicas and reasons.
    """
    deadline = time.monotonic() + patience.seconds
    labels = tuple(dict.fromkeys([*goal.labels, *LABELS]))
    reloads, progress, reported = _Reloads(), _Progress(loading), dict[str, str]()
    failures = None if loading is None else _Failures(loading, fleet.read_state(labels=labels))
    while True:
        view = fleet.read_state(labels=labels)
        lacks = {each.address: lack for each in view.replicas if (lack := shortfall(each, goal))}
        missing = [each.address for each in view.missing]
        behind = [address for address in lacks if address not in missing]
        if view.reached and not behind and len(missing) <= patience.allow_missing:
            return view
        progress.update(view, lacks)
        reloads.forget(missing)
        if failures is not None:
            failures.check(view)
        if time.monotonic() >= deadline:
            raise FleetError(_complaint(lacks, reloads, progress, patience.seconds))
        for address in missing:
            if reported.get(address) != lacks[address]:
                say(f"waiting for {address}: {lacks[address]}")
        reported |= lacks
        if patience.reload:
            reloads.send(fleet, config, behind)
        time.sleep(POLL_SECONDS)


def _status(replica: ReplicaView, version: int | None) -> VersionStatus | None:
    return None if version is None else replica.versions.get(version)


def _complaint(
    lacking: dict[str, str], reloads: _Reloads, progress: _Progress, seconds: float
) -> str:
    parts = []
    for address, lacks in lacking.items():
        text = f"{address}: {lacks}"
        if refused := reloads.errors.get(address, ""):
            text += f" (its reload said: {refused})"
        elif address in progress.went_back:
            text += " (it converged and then went back, so it reads another config than --config)"
        parts.append(text)
    return f"not converged after {seconds:g} s: {'; '.join(parts)}"
