"""One server, asked directly about one model: what tools that manage servers need.

Each call is made once, with no retry: whoever looks again in a moment is the retry.
"""

from __future__ import annotations

from typing import Any

from featurewire._client import Client
from featurewire._config import ChannelConfig, TLSConfig
from featurewire._errors import ModelNotFoundError
from featurewire._settings import UNSET, Timeout
from featurewire._status import VersionStatus

__all__ = ["Server"]


class Server(Client):
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
        channel = ChannelConfig(token=token, connect_timeout=5.0, max_reconnect_backoff=1.0)
        super().__init__(address, model=model, tls=tls, channel=channel, timeout=timeout)

    def versions(self) -> dict[int, VersionStatus]:
        """The versions that it lists; empty where it does not know the model."""
        try:
            status = self._run(self._inquiry.status(self._deadline(UNSET), once=True))
        except ModelNotFoundError:
            return {}
        return {each.version: each for each in status.versions}

    def labelled(self, label: str) -> int | None:
        """The version that carries a label; None where none does."""
        # Status knows no labels with TensorFlow Serving; metadata does.
        view = self.with_options(label=label)
        try:
            metadata = self._run(view._inquiry.signatures(self._deadline(UNSET), once=True))
        except ModelNotFoundError:
            return None
        return metadata.version or None

    def manifest(self, version: int, *, timeout: Timeout = UNSET) -> dict[str, Any] | None:
        """The manifest of an AVAILABLE version; None where it has none."""
        inquiry = self.with_options(version=version)._inquiry
        try:
            return self._run(inquiry.metadata(self._deadline(timeout), once=True)).manifest
        except ModelNotFoundError:  # unloaded since its status was read
            return None

    def call(self, method: str, request: bytes, *, timeout: Timeout = UNSET) -> bytes:
        """Any unary call, by its full name `/package.Service/Method`; messages as bytes."""
        return self._run(self._inquiry.unary(method, request, self._deadline(timeout), once=True))
