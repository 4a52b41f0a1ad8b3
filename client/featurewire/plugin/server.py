"""Direct calls to one server about one model, for tools that manage servers.

Calls are not retried, because such a tool polls anyway.
"""

from __future__ import annotations

from typing import Any

from featurewire._client import Client
from featurewire._config import UNSET, ChannelConfig, Timeout, TLSConfig
from featurewire._errors import ModelNotFoundError
from featurewire._wire.status import VersionStatus


class Server:
    """One server and one model. Thread-safe; `close` it. Calls raise `FeaturewireError`."""

    def __init__(
        self,
        address: str,
        *,
        model: str,
        tls: TLSConfig | None = None,
        token: str | None = None,
        timeout: float = 10.0,
    ) -> None:
        """`address`: one `host:port`. `timeout`: seconds per call. Raises `ConfigError`."""
        channel = ChannelConfig(token=token, connect_timeout=5.0, max_reconnect_backoff=1.0)
        self._client = Client(address, model=model, tls=tls, channel=channel, timeout=timeout)

    def versions(self) -> dict[int, VersionStatus]:
        """The versions that the server lists; empty if it does not know the model."""
        client = self._client
        try:
            status = client._run(client._queries.status(client._deadline(UNSET), once=True))
        except ModelNotFoundError:
            return {}
        return {each.version: each for each in status.versions}

    def labelled(self, label: str) -> int | None:
        """The version that carries a label; None if no version does."""
        # TensorFlow Serving ignores labels in GetModelStatus, but not in GetModelMetadata.
        view = self._client.with_options(label=label)
        try:
            metadata = view._run(view._queries.signatures(view._deadline(UNSET), once=True))
        except ModelNotFoundError:
            return None
        return metadata.version or None

    def manifest(self, version: int, *, timeout: Timeout = UNSET) -> dict[str, Any] | None:
        """The manifest of an AVAILABLE version; None if the version does not have one."""
        view = self._client.with_options(version=version)
        try:
            metadata = view._run(view._queries.metadata(view._deadline(timeout), once=True))
        except ModelNotFoundError:  # unloaded since the caller read its status
            return None
        return metadata.manifest

    def call(self, method: str, request: bytes, *, timeout: Timeout = UNSET) -> bytes:
        """Any unary call, by its full name `/package.Service/Method`, with serialised messages."""
        client = self._client
        return client._run(
            client._queries.unary(method, request, client._deadline(timeout), once=True)
        )

    def close(self) -> None:
        """Close the connection; open calls end with an error."""
        self._client.close()
