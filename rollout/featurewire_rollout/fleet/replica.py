"""One replica: query it and reload its config."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from featurewire import FeaturewireError, ServerError, TLSConfig
from featurewire._tfs.model_management_pb2 import ReloadConfigRequest, ReloadConfigResponse
from featurewire._tfs.model_server_config_pb2 import ModelServerConfig
from featurewire.plugin.server import Server
from featurewire_rollout.decide.view import Manifest, ReplicaView

RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
MANIFEST_SECONDS = 30.0
"""Timeout of a manifest, which is a Predict call and queues on a busy server."""


class Replica:
    """A server of one model. Thread-safe; `close` it."""

    def __init__(
        self,
        address: str,
        *,
        model: str,
        tls: TLSConfig | None = None,
        token: str | None = None,
        call_seconds: float = 10.0,
    ) -> None:
        """`address` is its `host:port`. Raises `ConfigError`."""
        self.address = address
        self._server = Server(address, model=model, tls=tls, token=token, timeout=call_seconds)
        self._lock = threading.Lock()
        self._manifests: dict[int, Manifest] = {}

    def read_state(self, *, labels: Sequence[str] = (), manifests: bool = False) -> ReplicaView:
        """Its state. The view of an unreachable replica holds the error."""
        try:
            found = self._server.versions()
            available = {number for number, status in found.items() if status.available}
            pointed = {label: self._server.labelled(label) for label in labels}
            return ReplicaView(
                address=self.address,
                versions=found,
                labels={label: number for label, number in pointed.items() if number is not None},
                manifests=(
                    {number: self.manifest(number) for number in sorted(available)}
                    if manifests
                    else {}
                ),
            )
        except FeaturewireError as error:
            self.forget()
            return ReplicaView(address=self.address, error=" ".join(str(error).split()))

    def forget(self) -> None:
        """Forget the manifests, because another process may answer now."""
        with self._lock:
            self._manifests.clear()

    def manifest(self, version: int) -> Manifest:
        """The manifest of an AVAILABLE version, requested once. Raises `FeaturewireError`."""
        with self._lock:
            if (known := self._manifests.get(version)) is not None:
                return known
        found = Manifest.of(self._server.manifest(version, timeout=MANIFEST_SECONDS))
        with self._lock:
            self._manifests[version] = found
        return found

    def reload(self, config: ModelServerConfig, *, seconds: float) -> None:
        """Send it `config`. Raises `FeaturewireError`."""
        request = ReloadConfigRequest(config=config).SerializeToString()
        reply = ReloadConfigResponse.FromString(self._server.call(RELOAD, request, timeout=seconds))
        if reply.status.error_code:
            raise ServerError(f"{self.address}: {reply.status.error_message}")

    def close(self) -> None:
        self._server.close()
