"""Detect that the replicas read another config than `--config`."""

from __future__ import annotations

from featurewire_rollout.decide.entry import Entry
from featurewire_rollout.decide.plan import STABLE
from featurewire_rollout.decide.view import FleetView, ReplicaView


def config_mismatch(entry: Entry, fleet: FleetView, name: str) -> str:
    """One line about replicas that cannot have read this config; empty if any replica fits.

    An interrupted step also leaves replicas in an older state. But the version of `stable` was
    loaded before the config said so, and stays in the list until `stable` has moved. If one replica
    fits, the others are probably late.
    """
    found = [_misfit(entry, replica) for replica in fleet.reached]
    if not found or not all(found):
        return ""
    return (
        f"the replicas do not serve what {name} says: {found[0]}; give the file that they read "
        "as --config"
    )


def _misfit(entry: Entry, replica: ReplicaView) -> str:
    stable, shown = entry.labels.get(STABLE), replica.labels.get(STABLE)
    if shown is not None and stable is None:
        return f"{replica.address} has stable at version {shown}, the config has no label stable"
    if shown is not None and entry.versions is not None and shown not in entry.versions:
        says = f"lists {_listed(entry.versions)}"
        return f"{replica.address} has stable at version {shown}, the config {says}"
    if stable is not None and entry.versions is not None and stable not in replica.versions:
        return (
            f"{replica.address} knows {_listed(replica.versions)}, the config has stable at "
            f"version {stable}"
        )
    return ""


def _listed(versions: object) -> str:
    numbers = sorted(versions) if isinstance(versions, (tuple, dict)) else []
    return f"version {', '.join(map(str, numbers))}" if numbers else "no version of the model"
