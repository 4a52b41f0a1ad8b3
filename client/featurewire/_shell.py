"""What `Client` and `AsyncClient` have in common: all but their I/O."""

from __future__ import annotations

from featurewire._config import ChannelConfig, RetryConfig, StreamConfig, TLSConfig
from featurewire._connection import Connection
from featurewire._core import Core
from featurewire._settings import DEFAULT_TIMEOUT, Settings, Timeout
from featurewire._stats import Stats

__all__ = ["Shell"]


class Shell:
    """See `Client` for the arguments."""

    def __init__(
        self,
        target: str,
        *,
        model: str,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        retry: RetryConfig = RetryConfig(),  # noqa: B008
        tls: TLSConfig | None = None,
        channel: ChannelConfig = ChannelConfig(),  # noqa: B008
        stream: StreamConfig = StreamConfig(),  # noqa: B008
        signature: str = "serving_default",
        input: str | None = None,
        output: str | None = None,
    ) -> None:
        given = locals()
        settings = Settings(**{name: given[name] for name in Settings.__dataclass_fields__})
        self._connection = Connection(settings)
        self._core = Core(settings, self._connection)
        self._connect()

    def _connect(self) -> object:
        """Make the channels, if that is to be done at once."""

    def _deadline(self, timeout: Timeout) -> float:
        """When a call that begins now has to end."""
        self._connection.check_usable()
        return self._core.deadline(timeout)

    def stats(self) -> Stats:
        """What this client has seen so far."""
        return self._connection.stats()
