"""What a client is made with: the constructor's arguments, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from featurewire._config import ChannelConfig, RetryConfig, StreamConfig, TLSConfig
from featurewire._errors import ConfigError

__all__ = ["DEFAULT_TIMEOUT", "UNSET", "Settings", "Timeout", "Unset", "check_timeout"]

DEFAULT_TIMEOUT = 60.0


class Unset:
    """ "Not given", where None means "no limit"."""

    def __repr__(self) -> str:
        return "the client's"


UNSET = Unset()
Timeout = float | None | Unset


@dataclass(frozen=True, kw_only=True)
class Settings:
    """See `Client`."""

    target: str
    model: str
    version: int | None
    label: str | None
    vector_space: str | None
    timeout: float | None
    retry: RetryConfig
    tls: TLSConfig | None
    channel: ChannelConfig
    stream: StreamConfig
    signature: str
    input: str | None
    output: str | None

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError(f"model={self.model!r}: expected the model's name on the server")
        check_timeout(self.timeout)
        kinds = {"retry": RetryConfig, "channel": ChannelConfig, "stream": StreamConfig}
        if self.tls is not None:
            kinds["tls"] = TLSConfig
        for name, kind in kinds.items():
            if not isinstance(value := getattr(self, name), kind):
                raise ConfigError(f"{name}={value!r}: expected a {kind.__name__}")
        version, label = self.version, self.label
        if version is not None and label is not None:
            raise ConfigError("version and label: name one of them, not both")
        if version is not None and (not isinstance(version, int) or not 0 <= version < 1 << 63):
            raise ConfigError(f"version={version!r}: expected a whole number, such as 1")
        space = self.vector_space
        if space is not None and (not isinstance(space, str) or not space):
            raise ConfigError(f"vector_space={space!r}: expected the digest that a manifest holds")
        if label is not None and not isinstance(label, str):
            raise ConfigError(f"label={label!r}: expected a str, such as 'stable'")


def check_timeout(timeout: Any) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise ConfigError(f"timeout={timeout!r}: expected seconds > 0, or None for no limit")
    return float(timeout)
