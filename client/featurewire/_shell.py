"""What `Client` and `AsyncClient` have in common: all but their I/O."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from featurewire import _channel
from featurewire._config import ChannelConfig, Metadata, RetryConfig, StreamConfig, TLSConfig
from featurewire._connection import Connection
from featurewire._core import Core
from featurewire._driver import Method
from featurewire._settings import DEFAULT_TIMEOUT, UNSET, Settings, Timeout, Unset
from featurewire._stats import Stats

if TYPE_CHECKING:
    from typing import Self

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
        vector_space: str | None = None,
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
        channels: list[Any] = []
        self._channels = channels
        self._method: Method = functools.cache(
            lambda server, name: channels[server].unary_unary(name)
        )
        self._connect()

    _is_view = False

    def _connect(self) -> None:
        """Make the channels, if that is to be done at once."""

    def _open(self, aio: Any = None) -> None:
        connection = self._connection
        for server in connection.servers:
            channel = _channel.open_channel(server, connection.channel, connection.tls, aio)
            self._channels.append(channel)

    def _deadline(self, timeout: Timeout) -> float:
        """When a call that begins now has to end."""
        self._connection.check_usable()
        return self._core.deadline(timeout)

    def with_options(
        self,
        *,
        timeout: Timeout = UNSET,
        version: int | Unset | None = UNSET,
        label: str | Unset | None = UNSET,
        vector_space: str | Unset | None = UNSET,
        metadata: Metadata = (),
    ) -> Self:
        """The same client with other options: a view that shares the connection, and costs nothing.

        `version` and `label` replace each other. `metadata` is sent besides the client's own; the
        same keys replace it. Close the client that was made first: that ends its views too.
        """
        given = {
            "timeout": timeout,
            "version": version,
            "label": label,
            "vector_space": vector_space,
        }
        changes: dict[str, Any] = {
            name: value for name, value in given.items() if not isinstance(value, Unset)
        }
        if changes.get("version") is not None:
            changes.setdefault("label", None)
        if changes.get("label") is not None:
            changes.setdefault("version", None)
        view = object.__new__(type(self))
        vars(view).update(vars(self))
        view._is_view = True
        view._connection = self._connection.view(metadata)
        view._core = Core(replace(self._core.settings, **changes), view._connection)
        return view

    def __repr__(self) -> str:
        settings = self._core.settings
        parts = [repr(settings.target), f"model={settings.model!r}"]
        for name in ("version", "label", "vector_space"):
            if (value := getattr(settings, name)) is not None:
                parts.append(f"{name}={value!r}")
        closed = " (closed)" if self._connection.life.closed else ""
        return f"{type(self).__name__}({', '.join(parts)}){closed}"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be pickled: its connection belongs to this process; "
            "make one in each process, such as in a pool's initializer"
        )

    def stats(self) -> Stats:
        """What this client has seen so far."""
        return self._connection.stats()
