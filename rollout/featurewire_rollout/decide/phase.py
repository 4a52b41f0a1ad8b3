"""The phase of a rollout, and the commands that can follow."""

from __future__ import annotations

from dataclasses import dataclass

from featurewire_rollout.decide.config_mismatch import config_mismatch
from featurewire_rollout.decide.entry import Entry
from featurewire_rollout.decide.plan import (
    LABELS,
    PREVIOUS,
    STABLE,
    Goal,
    shortfall,
    trial_version,
)
from featurewire_rollout.decide.view import FleetView


@dataclass(frozen=True, kw_only=True)
class Phase:
    """The phase of a rollout."""

    name: str
    """`none`, `loading`, `loaded`, `on trial`, `promoted`, `at rest`, `wrong config` (the replicas
    read another one) or `unknown` (without a config)."""
    text: str
    next: tuple[str, ...]
    """Commands that fit, the most likely first."""
    differences: tuple[str, ...] = ()
    """One line per replica that differs from the config."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """The config's entry, the state of the replicas, and the phase."""

    model: str
    entry: Entry | None
    """None without a config."""
    fleet: FleetView
    phase: Phase


def phase_of(entry: Entry | None, fleet: FleetView, *, config: str = "the config") -> Phase:
    """The phase of a rollout. `entry` is None without a config; `config` is its name in texts."""
    if entry is not None and (fault := config_mismatch(entry, fleet, config)):
        return Phase(name="wrong config", text=fault, next=())
    return _phase_of(entry, fleet)


def _phase_of(entry: Entry | None, fleet: FleetView) -> Phase:
    if entry is None:
        return Phase(
            name="unknown",
            text="name the config with --config to see the phase of the rollout",
            next=(),
        )
    stable = entry.labels.get(STABLE)
    if entry.versions is None or stable is None:
        return Phase(
            name="none",
            text=f"no rollout yet: the policy is {entry.policy}, no version is labelled stable",
            next=("start --version N",),
        )
    ours = {label: number for label, number in entry.labels.items() if label in LABELS}
    differences = _differences(fleet, Goal(versions=entry.versions, labels=ours))
    trial, previous = trial_version(entry), entry.labels.get(PREVIOUS)
    if trial is not None:
        again = (f"start --version {trial}", "rollback")
        return Phase(
            name="on trial",
            text=f"version {trial} is on trial next to {stable}",
            next=again if differences else ("check --images DIR", "promote", "rollback"),
            differences=differences,
        )
    if previous is not None:
        return Phase(
            name="promoted",
            text=f"version {stable} is stable; {previous} is loaded for a rollback",
            next=("promote", "rollback") if differences else ("retire", "rollback"),
            differences=differences,
        )
    idle = [number for number in entry.versions if number not in entry.labels.values()]
    if idle:
        listed = ", ".join(map(str, idle))
        ready = all(number in fleet.available_everywhere() for number in idle)
        return Phase(
            name="loaded" if ready else "loading",
            text=f"version {stable} is stable; no label points to {listed}",
            next=("rollback",) if differences else (f"start --version {max(idle)}", "retire"),
            differences=differences,
        )
    return Phase(
        name="at rest",
        text=f"version {stable} is stable",
        next=("rollback",) if differences else ("start --version N",),
        differences=differences,
    )


def _differences(fleet: FleetView, goal: Goal) -> tuple[str, ...]:
    return tuple(
        f"{replica.address}: {lacks}"
        for replica in fleet.replicas
        if (lacks := shortfall(replica, goal))
    )
