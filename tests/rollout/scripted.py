"""A fleet with views scripted by the test."""

from __future__ import annotations

from collections.abc import Sequence

from featurewire import VersionStatus
from featurewire._tfs.model_server_config_pb2 import ModelServerConfig
from featurewire_rollout.decide.view import FleetView, ReplicaView


def shows(*states: tuple[int, str], **labels: int) -> ReplicaView:
    versions = {number: VersionStatus(version=number, state=state) for number, state in states}
    return ReplicaView(address="a:1", versions=versions, labels=labels)


class Scripted:
    """Shows one view after another, then the last one forever."""

    def __init__(self, *views: ReplicaView, refusal: str = "") -> None:
        """`refusal`: the error of every reload."""
        self.views = list(views)
        self.refusal = refusal
        self.reloads = 0

    def read_state(self, *, labels: Sequence[str] = (), manifests: bool = False) -> FleetView:
        view = self.views.pop(0) if len(self.views) > 1 else self.views[0]
        return FleetView(replicas=[view])

    def close(self) -> None:
        pass

    def reload(self, config: ModelServerConfig, addresses: Sequence[str]) -> dict[str, str]:
        self.reloads += 1
        return dict.fromkeys(addresses, self.refusal) if self.refusal else {}
