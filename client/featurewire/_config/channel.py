"""Configuration of the connection, and of the metadata of every call."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from featurewire._config.checks import check_numbers, checked, require
from featurewire._errors import ConfigError

_HEADER_KEY = re.compile(r"[0-9a-z_.-]+")
_TOKEN = re.compile(r"[\x21-\x7e]")
_HEADER = re.compile(r"[\x20-\x7e]")
"""A character that a metadata value may hold:
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests"""

Token = str | Callable[[], str]
Metadata = Mapping[str, str | bytes] | Sequence[tuple[str, str | bytes]]


def checked_token(token: object, whose: str = "the token") -> str:
    """Return the token if it can be sent. Raises a `ConfigError` that does not repeat the token."""
    subject = {"argument": "token", "config": "ChannelConfig"}
    if not isinstance(token, str):
        raise ConfigError(f"{whose} is a {type(token).__name__}, not a str", **subject)
    wrong = sorted({each for each in token if not _TOKEN.fullmatch(each)})
    require(token, f"{whose} is empty", **subject)
    require(
        not wrong,
        f"{whose} contains {', '.join(map(repr, wrong))}; only visible ASCII characters can be "
        "sent, so strip spaces and line breaks",
        **subject,
    )
    return token


def _pairs(field: str, given: Any) -> tuple[tuple[Any, Any], ...]:
    """A mapping's items, or a sequence's pairs."""
    try:
        return tuple((key, value) for key, value in getattr(given, "items", lambda: given)())
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"ChannelConfig({field}=…): expected a dict or (key, value) pairs"
        ) from error


@checked
@dataclass(frozen=True, kw_only=True)
class ChannelConfig:
    """The connection: its limits, its keepalive, and the metadata of every call."""

    metadata: Metadata = ()
    """Custom metadata for every call. Keys are lower case; the key of a bytes value ends in
    `-bin`."""
    token: Token | None = field(default=None, repr=False)
    """A bearer token, or a function that returns the current one. The function is called for every
    attempt and should return at once, so cache the token. Needs TLS, or a target on this
    machine."""
    interceptors: Sequence[Any] = ()
    """gRPC interceptors, outermost first: `grpc.UnaryUnaryClientInterceptor`s for `Client`,
    `grpc.aio.UnaryUnaryClientInterceptor`s for `AsyncClient`. They see serialised messages."""
    compression: Literal["none", "gzip", "deflate"] = "none"
    """Compression of messages. It costs CPU time and pays off only for BMP, because other image
    formats are compressed already."""
    wait_for_ready: bool = False
    """Let an attempt wait for the connection, up to the timeout, instead of failing at once."""
    max_message_bytes: int = -1
    """Maximum size of a message, both ways. -1: only the server's limit (gRPC's default: 4 MiB)."""
    keepalive_time: float = 30.0
    """While calls are open, ping a connection after this much silence. A server with gRPC's
    defaults, such as TensorFlow Serving, closes a connection at the fourth ping without a reply in
    between. If a call may take longer than two minutes, set at least a quarter of its duration."""
    keepalive_timeout: float = 20.0
    """Give up a connection if a ping is not answered within this time."""
    connect_timeout: float = 5.0
    """Give up one connection attempt, including its TLS handshake, after this time."""
    max_reconnect_backoff: float = 2.0
    """Longest wait between attempts to reconnect."""
    load_balancing: str = "round_robin"
    """gRPC's policy over the addresses of one target's host name (`round_robin`, `pick_first`)."""
    options: Sequence[tuple[str, Any]] = ()
    """More gRPC channel arguments. They override the ones made from the fields above."""

    def __post_init__(self) -> None:
        check_numbers(self, "max_message_bytes", low=-1, whole=True)
        check_numbers(self, "keepalive_time", "keepalive_timeout", low=0, above=True)
        check_numbers(self, "connect_timeout", "max_reconnect_backoff", low=0, above=True)
        require(
            self.compression in ("none", "gzip", "deflate"),
            f"ChannelConfig(compression={self.compression!r}): expected none, gzip or deflate",
        )
        require(
            isinstance(self.load_balancing, str) and self.load_balancing,
            f"ChannelConfig(load_balancing={self.load_balancing!r}): expected a policy's name, "
            "such as 'round_robin'",
        )
        if self.token is not None and not callable(self.token):
            checked_token(self.token)
        metadata = _pairs("metadata", self.metadata)
        for key, value in metadata:
            _check_header(key, value)
        # Tuples, because they are hashable and do not change if the caller changes its dict.
        object.__setattr__(self, "metadata", metadata)
        object.__setattr__(self, "options", _pairs("options", self.options))
        object.__setattr__(self, "interceptors", tuple(self.interceptors))

    def metadata_pairs(self) -> list[tuple[str, str | bytes]]:
        """`metadata` in the form that gRPC takes: a list of pairs."""
        return list(cast("Sequence[tuple[str, str | bytes]]", self.metadata))


def _check_header(key: object, value: object) -> None:
    """Raise `ConfigError` for a pair that gRPC cannot send as metadata."""
    require(
        isinstance(key, str) and _HEADER_KEY.fullmatch(key),
        f"ChannelConfig(metadata=…): key {key!r} must be a lower-case str: ASCII letters, "
        "digits, '-', '_' and '.'",
    )
    if str(key).endswith("-bin"):
        require(isinstance(value, bytes), f"ChannelConfig(metadata=…): {key} must be bytes")
        return
    require(
        isinstance(value, str),
        f"ChannelConfig(metadata=…): {key} must be a str (bytes need a key in -bin)",
    )
    wrong = sorted({each for each in str(value) if not _HEADER.fullmatch(each)})
    require(
        not wrong,
        f"ChannelConfig(metadata=…): the value of {key} contains {', '.join(map(repr, wrong))}; "
        "only printable ASCII can be sent, other text as bytes under a key in -bin",
    )
