"""One server, asked directly about one model: what tools that manage servers need.

Each call is made once, with no retry: whoever looks again in a moment is the retry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from featurewire import _channel as channels
from featurewire._codec import PREDICT, Codec, Names, model_spec
from featurewire._config import ChannelConfig, TLSConfig
from featurewire._errors import ModelNotFoundError, from_rpc_error
from featurewire._reply import read_strings
from featurewire._status import (
    GET_METADATA,
    GET_STATUS,
    VersionStatus,
    metadata_request,
    parse_manifest,
    parse_metadata,
    parse_status,
    status_request,
)

__all__ = ["Server"]


class Server:
    """Thread-safe; `close` it. Calls raise `FeaturewireError`."""

    def __init__(
        self,
        address: str,
        *,
        model: str,
        tls: TLSConfig | None = None,
        token: str | None = None,
        timeout: float = 10.0,
    ) -> None:
        """`address` is one `host:port`; `timeout`: seconds a call. Raises `ConfigError`."""
        self.address = address
        self._model = model
        self._timeout = timeout
        config = ChannelConfig(token=token, connect_timeout=5.0, max_reconnect_backoff=1.0)
        channels.check_token(config, tls, [address])
        self._metadata = [("authorization", f"Bearer {token}")] if token is not None else []
        loaded = tls.loaded() if tls is not None else None
        self._channel = channels.open_channel(address, config, loaded)

    def versions(self) -> dict[int, VersionStatus]:
        """The versions that it lists; empty where it does not know the model."""
        try:
            reply = self.call(GET_STATUS, status_request(model_spec(self._model)))
        except ModelNotFoundError:
            return {}
        status = parse_status(reply, model=self._model)
        return {each.version: each for each in status.versions}

    def labelled(self, label: str) -> int | None:
        """The version that carries a label; None where none does."""
        # Status knows no labels with TensorFlow Serving; metadata does.
        try:
            reply = self.call(GET_METADATA, metadata_request(model_spec(self._model, label=label)))
        except ModelNotFoundError:
            return None
        return parse_metadata(reply).version or None

    def manifest(self, version: int, *, timeout: float | None = None) -> dict[str, Any] | None:
        """The manifest of an AVAILABLE version; None where it has none."""
        try:
            reply = self.call(
                GET_METADATA, metadata_request(model_spec(self._model, version=version))
            )
            signature = parse_metadata(reply).signatures.get("manifest")
            if signature is None or set(signature.inputs) != {"request"}:
                return None
            spec = model_spec(self._model, version=version, signature="manifest")
            names = Names(signature="manifest", input="request", output="manifest", status=None)
            reply = self.call(PREDICT, Codec(spec, names).build([b""]), timeout=timeout)
            return parse_manifest(read_strings(reply, "manifest"))
        except ModelNotFoundError:  # unloaded since its status was read
            return None

    def call(self, method: str, request: bytes, *, timeout: float | None = None) -> bytes:
        """Any unary call, by its full name `/package.Service/Method`; messages as bytes."""
        send: Callable[..., bytes] = self._channel.unary_unary(method)
        seconds = self._timeout if timeout is None else timeout
        try:
            return send(request, timeout=seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error, target=self.address, model=self._model) from error

    def close(self) -> None:
        channels.close_all([self._channel])
