"""What a client is made with: the arguments of its constructor, checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

from featurewire import _DEFAULT_TIMEOUT
from featurewire._config.channel import ChannelConfig
from featurewire._config.checks import check_names
from featurewire._config.retry import RetryConfig
from featurewire._config.stream import StreamConfig
from featurewire._config.tls import TLSConfig
from featurewire._errors import ConfigError, UnknownArgumentError

__all__ = ["UNSET", "Settings", "Timeout", "Unset", "check_timeout", "made_with"]


class Unset:
    """ "Not given", where None means "no limit"."""

    def __repr__(self) -> str:
        return "the client's"


UNSET = Unset()
Timeout = float | None | Unset


@dataclass(frozen=True)
class Settings:
    """See `Client`."""

    target: str
    _: KW_ONLY
    model: str
    version: int | None = None
    label: str | None = None
    vector_space: str | None = None
    timeout: float | None = _DEFAULT_TIMEOUT
    retry: RetryConfig = RetryConfig()  # noqa: RUF009
    tls: TLSConfig | None = None
    channel: ChannelConfig = ChannelConfig()  # noqa: RUF009
    stream: StreamConfig = StreamConfig()  # noqa: RUF009
    signature: str = "serving_default"
    input: str | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError(f"model={self.model!r}: expected the model's name on the server")
        check_timeout(self.timeout)
        for name, kind in _CONFIGS.items():
            value = getattr(self, name)
            if not isinstance(value, kind) and (name, value) != ("tls", None):
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


_CONFIGS: dict[str, Any] = {
    "retry": RetryConfig,
    "tls": TLSConfig,
    "channel": ChannelConfig,
    "stream": StreamConfig,
}


def _check_arguments(owner: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Raise `UnknownArgumentError`; for a field of a configuration, name that configuration."""
    for name in given:
        for argument, kind in _CONFIGS.items():
            if name not in known and name in kind.__dataclass_fields__:
                raise UnknownArgumentError(
                    f"{owner}: unknown argument {name!r}; did you mean "
                    f"{argument}={kind.__name__}({name}=…)?"
                )
    check_names(owner, given, known)


Made = TypeVar("Made")
Kind = TypeVar("Kind")
P = ParamSpec("P")


def made_with(
    kind: Callable[P, Kind],
) -> Callable[[Callable[[Made, Kind], None]], Callable[Concatenate[Made, P], None]]:
    """Let an `__init__` that takes one `kind` be called with the arguments of `kind` itself."""

    signature = inspect.signature(kind)

    def decorate(init: Callable[[Made, Kind], None]) -> Callable[Concatenate[Made, P], None]:
        def __init__(self: Made, /, *args: P.args, **kwargs: P.kwargs) -> None:
            _check_arguments(type(self).__name__, kwargs, list(signature.parameters))
            signature.bind(*args, **kwargs)  # its TypeError does not name `kind`
            init(self, kind(*args, **kwargs))

        made = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        parameters = [made, *signature.parameters.values()]
        __init__.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return __init__

    return decorate
