"""The goal of each step, decided from the config and the state of the replicas.

The config alone holds the state of a rollout, as a list of versions and three labels:

    stable = canary = V                        at rest: V is served
    stable = V, canary = N                     on trial
    stable = canary = N, previous = V          promoted; V is loaded for a rollback

A version without a label is loaded but not used: `start` gives it a label, `retire` unloads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from featurewire_rollout.decide.entry import Entry
from featurewire_rollout.decide.view import FleetView, ReplicaView
from featurewire_rollout.errors import RefusedError

STABLE, CANARY, PREVIOUS = "stable", "canary", "previous"
LABELS = (STABLE, CANARY, PREVIOUS)


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The state that the config and every replica must reach."""

    versions: tuple[int, ...]
    labels: Mapping[str, int] = field(default_factory=dict)
    loaded: tuple[int, ...] = ()
    """Versions that must be AVAILABLE in addition to the labelled ones. The rest of `versions` may
    be in any state, because one of them may be broken."""
    unloaded: tuple[int, ...] = ()
    """Versions that must be unloaded."""

    def matches(self, entry: Entry) -> bool:
        """Whether the config has reached this goal."""
        return entry.versions == self.versions and dict(entry.labels) == dict(self.labels)

    def with_labels(self, **labels: int) -> Goal:
        return replace(self, labels={**self.labels, **labels})


def as_goal(entry: Entry) -> Goal:
    """The state in the config, as a goal for late replicas. Raises `RefusedError`."""
    if entry.versions is None:
        raise RefusedError("no rollout is under way: start one with `start --version N`")
    return Goal(versions=entry.versions, labels=entry.labels)


def current_version(entry: Entry, fleet: FleetView, version: int) -> int:
    """The version that serves during the rollout of `version`.

    This is the version of `stable`; before the first rollout, the highest other version that is
    AVAILABLE on every replica. Raises `RefusedError`.
    """
    if (stable := entry.labels.get(STABLE)) is not None:
        return stable
    others = fleet.available_everywhere() - {version}
    if not others:
        raise RefusedError(
            f"{version} is the only version that is AVAILABLE on every replica, so no other can "
            "become stable; serve another version first"
        )
    return max(others)


def plan_start(entry: Entry, fleet: FleetView, version: int) -> Goal:
    """The goal during the load of `version`: all other versions and labels stay.

    The next goal is `goal.with_labels(canary=version)`. Raises `RefusedError`.
    """
    current = current_version(entry, fleet, version)
    previous = entry.labels.get(PREVIOUS)
    canary = entry.labels.get(CANARY, current)
    if current == version:
        raise RefusedError(f"version {version} is stable already")
    if version == previous:
        raise RefusedError(
            f"version {version} is still loaded for a rollback: `rollback` returns to it"
        )
    if previous is not None:
        raise RefusedError(
            f"version {previous} is still loaded for a rollback of the last rollout; `retire` it "
            "first"
        )
    if canary not in (current, version):
        raise RefusedError(
            f"version {canary} is on trial already; `promote` it or `rollback` first"
        )
    loaded = set(entry.versions or ())
    if entry.versions is None:
        loaded = {number for replica in fleet.reached for number in replica.available}
    # Versions of other labels also stay loaded.
    versions = loaded | {current, version} | set(entry.labels.values())
    return Goal(
        versions=tuple(sorted(versions)),
        labels={**entry.labels, STABLE: current},
        loaded=(version,),
    )


def trial_version(entry: Entry) -> int | None:
    """The version on trial, or None."""
    canary = entry.labels.get(CANARY)
    return canary if canary != entry.labels.get(STABLE) else None


def plan_promote(entry: Entry, version: int | None) -> Goal:
    """Move `stable` to the version on trial. Raises `RefusedError`."""
    stable, trial = entry.labels.get(STABLE), trial_version(entry)
    goal = as_goal(entry)
    if trial is None or stable is None:
        if stable is not None and PREVIOUS in entry.labels and version in (None, stable):
            return goal
        raise RefusedError(
            f"version {version} is stable already"
            if stable is not None and stable == version
            else "no version is on trial: `start --version N` first"
        )
    if version not in (None, trial):
        raise RefusedError(f"version {version} is not on trial, {trial} is")
    return goal.with_labels(stable=trial, canary=trial, previous=stable)


def plan_rollback(entry: Entry, version: int | None) -> Goal:
    """Move `stable` and `canary` back to the old version. Raises `RefusedError`."""
    goal = as_goal(entry)
    stable = entry.labels.get(STABLE)
    if stable is None:
        raise RefusedError("no rollout is under way: no version is labelled stable")
    old = version if version is not None else entry.labels.get(PREVIOUS, stable)
    if old not in goal.versions:
        raise RefusedError(
            f"version {old} is not loaded, so stable cannot go back to it; `start --version {old}` "
            "loads it"
        )
    labels = {label: number for label, number in goal.labels.items() if label != PREVIOUS}
    return Goal(versions=goal.versions, labels={**labels, STABLE: old, CANARY: old})


def plan_retire(entry: Entry, version: int | None) -> Goal:
    """Remove the label `previous`, and unload the versions without a label.

    A version with a label of the operator's own stays loaded, which `kept_by_labels` reports.
    Raises `RefusedError`.
    """
    goal = as_goal(entry)
    if STABLE not in entry.labels:
        raise RefusedError("no version is labelled stable: `start --version N` first")
    kept = {label: number for label, number in goal.labels.items() if label != PREVIOUS}
    previous = entry.labels.get(PREVIOUS)
    if version is not None and version in kept.values() and version != previous:
        names = " and ".join(sorted(label for label, number in kept.items() if number == version))
        raise RefusedError(
            f"version {version} stays loaded: {names} would point to nothing; move that first "
            "(`promote` or `rollback`, or in the config by hand where the label is your own)"
        )
    drop = {*goal.versions} - {*kept.values()}
    if version is not None:
        drop &= {version}
    elif not drop and previous is None and (trial := trial_version(entry)) is not None:
        raise RefusedError(
            f"there is nothing to unload, because stable points to version {kept[STABLE]} and "
            f"canary to {trial}; `promote` or `rollback` first"
        )
    labels = kept if version in (None, previous) else goal.labels
    left = tuple(number for number in goal.versions if number not in drop)
    return Goal(
        versions=left,
        labels={label: number for label, number in labels.items() if number in left},
        unloaded=tuple(sorted(drop)),
    )


def kept_by_labels(goal: Goal) -> list[str]:
    """One line per version that only a label of the operator's own keeps loaded."""
    served = {goal.labels.get(STABLE), goal.labels.get(CANARY)}
    found = []
    for version in goal.versions:
        names = sorted(label for label, number in goal.labels.items() if number == version)
        if names and version not in served:
            label = "label" if len(names) == 1 else "labels"
            point = "points" if len(names) == 1 else "point"
            found.append(
                f"version {version} stays loaded: your {label} {' and '.join(names)} {point} to it"
            )
    return found


def shortfall(replica: ReplicaView, goal: Goal) -> str:
    """The first difference between a replica and the goal, in words; empty if it is reached."""
    if not replica.reached:
        return f"cannot be reached ({replica.error})"
    for version in sorted({*goal.loaded, *goal.labels.values()}):
        if version not in replica.available:
            status = replica.versions.get(version)
            state = status.state if status is not None else "not loaded"
            return f"version {version} is {state}"
    for label, version in goal.labels.items():
        found = replica.labels.get(label)
        if found != version:
            return f"{label} is {'no version' if found is None else found}, not {version}"
    for label in LABELS:
        if label not in goal.labels and label in replica.labels:
            return f"{label} is still {replica.labels[label]}"
    for version in goal.unloaded:
        status = replica.versions.get(version)
        if status is not None and status.state != "END":
            return f"version {version} is still {status.state}"
    return ""
