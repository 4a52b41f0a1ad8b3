"""The state of the replicas as plain values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from featurewire import VersionStatus
from featurewire.manifest.spaces import bridges, vector_space


def retention_by_space(manifest: Mapping[str, Any] | None) -> dict[str, float]:
    """The fraction of recall@10 that each bridge of a version kept at export, by its space.

    Leaves out a bridge without a measured retention.
    """
    return {
        space: bridge.recall_at_10
        for space, bridge in bridges(manifest).items()
        if bridge.recall_at_10 is not None
    }


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The part of a version's manifest that rollouts use."""

    digest: str
    """Start of the manifest's SHA-256. It differs if two replicas serve different files."""
    vector_space: str | None
    """None without a manifest, or if the manifest does not declare a space."""
    bridges: Mapping[str, float] = field(default_factory=dict)
    """See `retention_by_space`."""

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
    """The state of one replica at one moment."""

    address: str
    error: str = ""
    """Why the replica did not answer; empty if it did. The other fields are empty then."""
    versions: Mapping[int, VersionStatus] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    """The requested labels that the replica resolves."""
    manifests: Mapping[int, Manifest] = field(default_factory=dict)
    """Manifests of AVAILABLE versions, if requested."""

    @property
    def reached(self) -> bool:
        return not self.error

    @property
    def available(self) -> set[int]:
        return {number for number, status in self.versions.items() if status.available}


@dataclass(frozen=True, kw_only=True)
class FleetView:
    """The state of all replicas at about the same moment."""

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
        """The vector spaces that replicas declare for a version; more than one is a fault."""
        manifests = [replica.manifests.get(version) for replica in self.reached]
        return {each.vector_space for each in manifests if each and each.vector_space}

    def bridge(self, version: int, space: str) -> float | None:
        """The retention of the version's bridge to `space`; None if a replica lacks the bridge."""
        kept = [
            manifest.bridges.get(space)
            for replica in self.reached
            if (manifest := replica.manifests.get(version)) is not None
        ]
        known = [each for each in kept if each is not None]
        return min(known) if known and len(known) == len(kept) else None

    def mixed_versions(self) -> dict[int, dict[str, list[str]]]:
        """Versions whose files differ between replicas: addresses by manifest digest."""
        seen: dict[int, dict[str, list[str]]] = {}
        for replica in self.reached:
            for version, manifest in replica.manifests.items():
                seen.setdefault(version, {}).setdefault(manifest.digest, []).append(replica.address)
        return {version: digests for version, digests in seen.items() if len(digests) > 1}
