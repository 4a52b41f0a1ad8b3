"""Compare the vector spaces of two versions, as their manifests declare them."""

from __future__ import annotations

import math

from featurewire.manifest.spaces import other_schemes
from featurewire_rollout.decide.view import FleetView, Manifest
from featurewire_rollout.errors import FleetError, SpaceError


def retention(kept: float) -> str:
    """The fraction of recall@10 that a bridge keeps, in words. Rounded down, to be safe."""
    return f"retention {math.floor(kept * 100 + 1e-9) / 100:.2f} at 10"


def compare_spaces(new: Manifest, fleet: FleetView, current: int) -> str:
    """One line that compares the space of a new version with that of the current one."""
    spaces = fleet.spaces(current)
    if new.vector_space is None or not spaces:
        return "vector space: not known; `check` measures it"
    if spaces == {new.vector_space}:
        return f"vector space: {new.vector_space}, as version {current}"
    text = f"vector space: {new.vector_space}, version {current} has {', '.join(sorted(spaces))}"
    kept = [new.bridges[space] for space in spaces if space in new.bridges]
    if len(kept) == len(spaces):
        return f"{text}, bridged: {retention(min(kept))}: `promote` will need --accept-bridge"
    schemes = other_schemes(min(spaces), new.vector_space)
    return f"{text}: `promote` will need --accept-new-space{schemes}"


def check_space(
    fleet: FleetView,
    old: int,
    new: int,
    *,
    accept_new_space: bool = False,
    accept_bridge: bool = False,
) -> str:
    """One line about the spaces of the two versions.

    Raises `SpaceError` for a new or unknown space that was not accepted, and `FleetError` if
    replicas disagree about a space.
    """
    for version in (old, new):
        if len(fleet.spaces(version)) > 1:
            listed = "; ".join(
                f"{replica.address}: {manifest.vector_space}"
                for replica in fleet.reached
                if (manifest := replica.manifests.get(version)) is not None
            )
            raise FleetError(
                f"the replicas serve different vector spaces as version {version} ({listed}); "
                "give every one the same files"
            )
    before, after = fleet.spaces(old), fleet.spaces(new)
    if before and before == after:
        return f"versions {old} and {new} share the vector space {before.pop()}"
    kept, schemes = None, ""
    if not before or not after:
        unknown = new if not after else old
        text = f"version {unknown} does not say its vector space"
        advice = "`check` measures it"
    else:
        space = before.pop()
        text = f"version {new} has the vector space {after.pop()}, version {old} {space}"
        advice = "an index of the old vectors has to be rebuilt"
        schemes = other_schemes(space, min(fleet.spaces(new)))
        if (kept := fleet.bridge(new, space)) is not None:
            text += f"; version {new} has a bridge to it: {retention(kept)}"
            advice = f"--accept-bridge promotes for clients with vector_space={space}"
    if accept_new_space or (accept_bridge and kept is not None):
        return text
    if accept_bridge:
        text += f"; --accept-bridge: version {new} has no bridge to the space of version {old}"
    raise SpaceError(f"{text}; {advice}; --accept-new-space promotes it anyway{schemes}")


def bridge_notes(fleet: FleetView) -> list[str]:
    """One line per older space that is still served, with the versions that serve it."""
    bridged: dict[str, set[int]] = {}
    native: dict[str, set[int]] = {}
    for replica in fleet.reached:
        for version, manifest in replica.manifests.items():
            if manifest.vector_space is not None:
                native.setdefault(manifest.vector_space, set()).add(version)
            for space in manifest.bridges:
                bridged.setdefault(space, set()).add(version)
    notes = []
    for space, versions in sorted(bridged.items()):
        ways = []
        for version in sorted(versions):
            kept = fleet.bridge(version, space)
            where = "on some replicas only" if kept is None else f"({retention(kept)})"
            ways.append(f"version {version} by a bridge {where}")
        ways += [f"version {version} itself" for version in sorted(native.get(space, ()))]
        notes.append(
            f"the old vector space {space} is still served, for indexes that are not re-embedded: "
            + ", ".join(ways)
        )
    return notes
