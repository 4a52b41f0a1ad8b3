"""One replica over gRPC: what it serves, and the reload of its config."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from featurewire import ChannelConfig, FeaturewireError, ModelNotFoundError, ServerError, TLSConfig
from featurewire import _channel as channels
from featurewire._codec import PREDICT, Codec, Names, model_spec
from featurewire._errors import from_rpc_error
from featurewire._reply import read_strings
from featurewire._status import (
    GET_METADATA,
    GET_STATUS,
    metadata_request,
    parse_manifest,
    parse_metadata,
    parse_status,
    status_request,
)
from featurewire._tfs.model_management_pb2 import ReloadConfigRequest, ReloadConfigResponse
from featurewire._tfs.model_server_config_pb2 import ModelServerConfig
from featurewire_rollout.view import Manifest, ReplicaView

__all__ = ["Replica"]

RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
MANIFEST_SECONDS = 30.0
"""A manifest is asked for by Predict, and waits its turn on a busy server."""


class Replica:
    """A server of one model. Thread-safe; `close` it."""

    def __init__(
        self,
        address: str,
        *,
        model: str,
        name: str | None = None,
        tls: TLSConfig | None = None,
        token: str | None = None,
        call_seconds: float = 10.0,
    ) -> None:
        """`address` is where it listens, `name` what people call it."""
        self.address = name or address
        self.target = address
        self._model = model
        self._seconds = call_seconds
        config = ChannelConfig(token=token, connect_timeout=5.0, max_reconnect_backoff=1.0)
        channels.check_token(config, tls, [address])
        self._metadata = [("authorization", f"Bearer {token}")] if token is not None else []
        loaded = tls.loaded() if tls is not None else None
        self._channel = channels.open_channel(address, config, loaded)
        self._lock = threading.Lock()
        self._manifests: dict[int, Manifest] = {}

    def look(self, *, labels: Sequence[str] = (), manifests: bool = False) -> ReplicaView:
        """What it serves. A replica that gives no answer is a view that says why."""
        try:
            found = self._versions()
            available = {number for number, status in found.items() if status.available}
            pointed = {label: self._label(label) for label in labels}
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
        """Ask for manifests anew: another process may answer now."""
        with self._lock:
            self._manifests.clear()

    def _versions(self) -> dict[int, Any]:
        try:
            reply = self._call(GET_STATUS, status_request(model_spec(self._model)))
        except ModelNotFoundError:
            return {}
        status = parse_status(reply, model=self._model)
        return {each.version: each for each in status.versions}

    def _label(self, label: str) -> int | None:
        # Status knows no labels with TensorFlow Serving; metadata does.
        try:
            reply = self._call(GET_METADATA, metadata_request(model_spec(self._model, label=label)))
        except ModelNotFoundError:
            return None
        return parse_metadata(reply).version or None

    def manifest(self, version: int) -> Manifest:
        """The manifest of an AVAILABLE version, asked for once. Raises `FeaturewireError`."""
        with self._lock:
            if (known := self._manifests.get(version)) is not None:
                return known
        found = Manifest.of(self._manifest(version))
        with self._lock:
            self._manifests[version] = found
        return found

    def _manifest(self, version: int) -> dict[str, Any] | None:
        try:
            reply = self._call(
                GET_METADATA, metadata_request(model_spec(self._model, version=version))
            )
            signature = parse_metadata(reply).signatures.get("manifest")
            if signature is None or set(signature.inputs) != {"request"}:
                return None
            spec = model_spec(self._model, version=version, signature="manifest")
            names = Names(signature="manifest", input="request", output="manifest", status=None)
            request = Codec(spec, names).build([b""])
            reply = self._call(PREDICT, request, seconds=MANIFEST_SECONDS)
            return parse_manifest(read_strings(reply, "manifest"))
        except ModelNotFoundError:  # unloaded since its status was read
            return None

    def reload(self, config: ModelServerConfig, *, seconds: float) -> None:
        """Have it take `config` now. Raises `FeaturewireError`."""
        request = ReloadConfigRequest(config=config).SerializeToString()
        reply = ReloadConfigResponse.FromString(self._call(RELOAD, request, seconds=seconds))
        if reply.status.error_code:
            raise ServerError(f"{self.address}: {reply.status.error_message}")

    def _call(self, method: str, request: bytes, *, seconds: float | None = None) -> bytes:
        call: Callable[..., bytes] = self._channel.unary_unary(method)
        try:
            return call(
                request,
                timeout=self._seconds if seconds is None else seconds,
                metadata=self._metadata,
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error, target=self.address, model=self._model) from error

    def close(self) -> None:
        channels.close_all([self._channel])
