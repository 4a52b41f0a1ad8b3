"""How the vector spaces of two versions stand to each other, as their manifests say."""

from __future__ import annotations

from featurewire_rollout.errors import FleetError, SpaceError
from featurewire_rollout.view import FleetView, Manifest

__all__ = ["check_space", "compare_spaces"]


def compare_spaces(new: Manifest, fleet: FleetView, current: int) -> str:
    """How the version's space stands to the current one's, in words."""
    spaces = fleet.spaces(current)
    if new.vector_space is None or not spaces:
        return "vector space: not known; `check` measures it"
    if spaces == {new.vector_space}:
        return f"vector space: {new.vector_space}, as version {current}"
    return (
        f"vector space: {new.vector_space}, version {current} has {', '.join(sorted(spaces))}: "
        "`promote` will need --accept-new-space"
    )


def check_space(fleet: FleetView, old: int, new: int, *, accept: bool) -> str:
    """What is known of the two versions' spaces, in words.

    Raises `SpaceError` for a new or an unknown space that nobody accepted, `FleetError` when
    replicas do not agree about it.
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
    if not before or not after:
        unknown = new if not after else old
        text = f"version {unknown} says nothing of its vector space"
        advice = "`check` measures it"
    else:
        text = f"version {new} has the vector space {after.pop()}, version {old} {before.pop()}"
        advice = "an index of the old vectors has to be rebuilt"
    if not accept:
        raise SpaceError(f"{text}; {advice}; --accept-new-space promotes all the same")
    return text
