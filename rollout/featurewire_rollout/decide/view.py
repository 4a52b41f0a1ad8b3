"""What a fleet was seen to serve: plain values, that decisions are made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from featurewire import VersionStatus
from featurewire.manifest.spaces import bridges, vector_space

__all__ = ["FleetView", "Manifest", "ReplicaView", "retention_by_space"]


def retention_by_space(manifest: Mapping[str, Any] | None) -> dict[str, float]:
    """Share of recall@10 that each bridge of a version kept at export, by the bridge's space.

    Leaves out a bridge whose retention the manifest does not give.
    """
    return {
        space: bridge.recall_at_10
        for space, bridge in bridges(manifest).items()
        if bridge.recall_at_10 is not None
    }


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a version says about itself."""

    digest: str
    """SHA-256 of the manifest, shortened: differs where the bytes of two replicas do."""
    vector_space: str | None
    """None where the version has no manifest, or one without a space."""
    bridges: Mapping[str, float] = field(default_factory=dict)
    """The older spaces in which the version answers as well, and what each bridge keeps of
    recall@10."""

    @classmethod
    def of(cls, manifest: Mapping[str, Any] | None) -> Manifest:
        if manifest is None:
            return cls(digest="", vector_space=None)
        text = json.dumps(manifest, sort_keys=True).encode()
        return cls(
            digest=hashlib.sha256(text).hexdigest()[:16],
            vector_space=vector_space(manifest),
            bridges=retention_by_space(manifest),
        )


@dataclass(frozen=True, kw_only=True)
class ReplicaView:
    """One replica, as it answered once."""

    address: str
    error: str = ""
    """Why it gave no answer; then nothing else is known."""
    versions: Mapping[int, VersionStatus] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    """The labels that were asked for and resolve."""
    manifests: Mapping[int, Manifest] = field(default_factory=dict)
    """Of AVAILABLE versions, where they were asked for."""

    @property
    def reached(self) -> bool:
        return not self.error

    @property
    def available(self) -> set[int]:
        return {number for number, status in self.versions.items() if status.available}


@dataclass(frozen=True, kw_only=True)
class FleetView:
    """All replicas, seen at about the same moment."""

    replicas: Sequence[ReplicaView]

    @property
    def reached(self) -> list[ReplicaView]:
        return [replica for replica in self.replicas if replica.reached]

    @property
    def missing(self) -> list[ReplicaView]:
        return [replica for replica in self.replicas if not replica.reached]

    def available_everywhere(self) -> set[int]:
        """Versions that are AVAILABLE on every replica that answered."""
        sets = [replica.available for replica in self.reached]
        return set.intersection(*sets) if sets else set()

    def spaces(self, version: int) -> set[str]:
        """The vector spaces that replicas name for a version; several are a fault."""
        manifests = [replica.manifests.get(version) for replica in self.reached]
        return {each.vector_space for each in manifests if each and each.vector_space}

    def bridge(self, version: int, space: str) -> float | None:
        """What the version's bridge to `space` keeps; None where some replica has none."""
        kept = [
            manifest.bridges.get(space)
            for replica in self.reached
            if (manifest := replica.manifests.get(version)) is not None
        ]
        known = [each for each in kept if each is not None]
        return min(known) if known and len(known) == len(kept) else None

    def mixed_versions(self) -> dict[int, dict[str, list[str]]]:
        """Versions of which replicas serve different bytes: digest to addresses."""
        seen: dict[int, dict[str, list[str]]] = {}
        for replica in self.reached:
            for version, manifest in replica.manifests.items():
                seen.setdefault(version, {}).setdefault(manifest.digest, []).append(replica.address)
        return {version: digests for version, digests in seen.items() if len(digests) > 1}
