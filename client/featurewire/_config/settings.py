"""The arguments of a client's constructor, validated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from featurewire._config.channel import ChannelConfig
from featurewire._config.retry import RetryConfig
from featurewire._config.stream import StreamConfig
from featurewire._config.tls import TLSConfig
from featurewire._errors import ConfigError


class Unset:
    """Marks an argument that was not given, because None means "no limit"."""

    def __repr__(self) -> str:
        return "the client's"


UNSET = Unset()
Timeout = float | None | Unset


CONFIGS: dict[str, Any] = {
    "retry": RetryConfig,
    "tls": TLSConfig,
    "channel": ChannelConfig,
    "stream": StreamConfig,
}
"""Arguments that are configurations, and their types."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The constructor's arguments; see `Client`."""

    target: str
    model: str
    version: int | None = None
    label: str | None = None
    vector_space: str | None = None
    timeout: float | None = None
    retry: RetryConfig
    tls: TLSConfig | None = None
    channel: ChannelConfig
    stream: StreamConfig
    signature: str = "serving_default"
    input: str | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise _wrong("model", self.model, "expected the model's name on the server")
        check_timeout(self.timeout)
        for name, kind in CONFIGS.items():
            value = getattr(self, name)
            if not isinstance(value, kind) and (name, value) != ("tls", None):
                raise _wrong(name, value, f"expected a {kind.__name__}")
        version, label = self.version, self.label
        if version is not None and label is not None:
            raise ConfigError("version and label: name one of them, not both")
        if version is not None and (not isinstance(version, int) or not 0 <= version < 1 << 63):
            raise _wrong("version", version, "expected a whole number, such as 1")
        space = self.vector_space
        if space is not None and (not isinstance(space, str) or not space):
            raise _wrong("vector_space", space, "expected a vector_space digest from a manifest")
        if label is not None and not isinstance(label, str):
            raise _wrong("label", label, "expected a str, such as 'stable'")


def check_timeout(timeout: Any) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise _wrong("timeout", timeout, "expected seconds > 0, or None for no limit")
    return float(timeout)


def _wrong(argument: str, value: object, problem: str) -> ConfigError:
    return ConfigError(problem, argument=argument, value=repr(value))
