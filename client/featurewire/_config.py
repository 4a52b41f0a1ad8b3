"""What can be set: frozen, keyword-only, checked when made. Times are seconds, sizes bytes."""

from __future__ import annotations

import base64
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, cast

from featurewire._errors import ConfigError, UnknownArgumentError

__all__ = [
    "ChannelConfig",
    "RetryConfig",
    "StreamConfig",
    "TLSConfig",
    "check_names",
    "checked_token",
]

MIB = 1 << 20
_HEADER_KEY = re.compile(r"[0-9a-z_.-]+")
_TOKEN = re.compile(r"[\x21-\x7e]")
_HEADER = re.compile(r"[\x20-\x7e]")
"""A character that a metadata value may hold:
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests"""


def check_names(owner: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Raise `UnknownArgumentError` for a name that `owner` does not know."""
    for name in given:
        if name not in known:
            import difflib  # here, so that only a mistake pays for the import

            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}"
            raise UnknownArgumentError(f"{owner}: unknown argument {name!r}; {hint}")


class _Config:
    """Turns a misspelt argument into a `ConfigError` that names the nearest one."""

    def __new__(cls, *_: Any, **kwargs: Any) -> Self:
        check_names(cls.__name__, kwargs, [each.name for each in fields(cast(Any, cls))])
        return super().__new__(cls)


def _require(fits: object, text: str) -> None:
    if not fits:
        raise ConfigError(text)


def _check(config: Any, *names: str, low: float, whole: bool = False, above: bool = False) -> None:
    """Each of these fields is a number, and one that is large enough."""
    for name in names:
        value = getattr(config, name)
        number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        fits = number and math.isfinite(value) and (value > low if above else value >= low)
        kind, sign = "whole number" if whole else "number", ">" if above else ">="
        owner = type(config).__name__
        _require(fits, f"{owner}({name}={value!r}): expected a {kind} {sign} {low}")


@dataclass(frozen=True, kw_only=True)
class RetryConfig(_Config):
    """When a call is sent again. All attempts together stay within the call's timeout.

    Only failures that another attempt can cure are retried: an unreachable server, a broken
    connection, a full queue. Predict is idempotent, so an attempt whose fate is unknown is safe to
    repeat.
    """

    max_attempts: int = 5
    """Attempts in all, the first one included; 1 switches retries off. In a stream: attempts of one
    request that may end without a reply in time, from a server that is there."""
    initial_backoff: float = 0.1
    """Upper bound of the random wait before the first retry ("full jitter")."""
    max_backoff: float = 5.0
    """Upper bound of any such wait."""
    backoff_multiplier: float = 2.0
    """How the bound grows from one retry to the next."""
    budget: float = 20.0
    """Retries and hedges that the client may spend in a burst, over all its calls. Streams do not
    draw on it: when a server fails they probe it with one request at a time."""
    budget_ratio: float = 0.1
    """Retries that every success earns back: in the long run at most this share of traffic."""
    hedge_after: float | None = None
    """Send a second, equal request when the first has no reply after so long, and take whichever
    answers first. None: never. Set it near the 99th percentile of `stats().latency`."""

    def __post_init__(self) -> None:
        _check(self, "max_attempts", low=1, whole=True)
        _check(self, "initial_backoff", "max_backoff", "budget", "budget_ratio", low=0)
        _check(self, "backoff_multiplier", low=1)
        if self.hedge_after is not None:
            _check(self, "hedge_after", low=0, above=True)


@dataclass(frozen=True, kw_only=True)
class StreamConfig(_Config):
    """How `stream` and `embed_batch` pack images into requests and how many they keep in flight."""

    images_per_request: int = 16
    """At most so many images in one Predict request. A server whose `max_batch_size` is lower is
    noticed, and requests shrink to it."""
    bytes_per_request: int = 8 * MIB
    """At most so many bytes of images in one request; a bigger image travels alone."""
    min_in_flight: int = 1
    """Requests in flight at least, however loaded the server is."""
    max_in_flight: int = 32
    """Requests in flight at most. With `min_in_flight` equal to it the number is fixed."""
    initial_in_flight: int = 4
    """Requests in flight at the start."""
    bytes_in_flight: int = 128 * MIB
    """Bytes of images in flight at most, over all requests of the stream. The process holds up to
    three times as much: the images, their requests, and what gRPC is sending."""
    linger: float = 0.1
    """How long an image waits for others to fill its request, when the iterable is slow."""
    patience: float = 300.0
    """How long a stream keeps trying a server that is gone or overloaded before it raises, once
    the client has had a reply to anything. Before that the usual retries decide. The time in which
    the consumer holds a result does not count."""
    readers: int = 1
    """Paths and callables of the source that are read at the same time."""
    pin_version: bool = False
    """Resolve the label (or the newest version) once, when a stream begins, and keep to it."""

    def __post_init__(self) -> None:
        _check(self, "images_per_request", "bytes_per_request", low=1, whole=True)
        _check(self, "min_in_flight", "max_in_flight", "initial_in_flight", low=1, whole=True)
        _check(self, "bytes_in_flight", "readers", low=1, whole=True)
        _check(self, "linger", "patience", low=0)
        _require(
            self.min_in_flight <= self.max_in_flight,
            f"StreamConfig: min_in_flight={self.min_in_flight} is above "
            f"max_in_flight={self.max_in_flight}",
        )


@dataclass(frozen=True, kw_only=True)
class TLSConfig(_Config):
    """TLS, and with `cert` and `key` mutual TLS. Each is PEM: bytes, or a path of a file.

    A file that changes is read again: calls that begin a second later use the new one.
    """

    ca: bytes | os.PathLike[str] | None = None
    """Root certificates to trust. None: the ones that gRPC ships."""
    cert: bytes | os.PathLike[str] | None = None
    """The client's certificate chain."""
    key: bytes | os.PathLike[str] | None = field(default=None, repr=False)
    """The client's private key."""
    server_name: str | None = None
    """The name to expect in the server's certificate, where it is not the target's host."""

    def __post_init__(self) -> None:
        _require(
            (self.cert is None) == (self.key is None),
            "TLSConfig: cert and key go together (mutual TLS), or neither",
        )
        for name in ("ca", "cert", "key"):
            value = getattr(self, name)
            _require(
                value is None or isinstance(value, (bytes, os.PathLike)),
                f"TLSConfig({name}=…): expected PEM bytes or a pathlib.Path, "
                f"not {type(value).__name__}",
            )

        _require(
            self.server_name is None or (isinstance(self.server_name, str) and self.server_name),
            f"TLSConfig(server_name={self.server_name!r}): expected a host name",
        )

    def loaded(self) -> TLSConfig:
        """The same with every file read. Raises `ConfigError`."""
        loaded = replace(
            self,
            ca=_pem("ca", self.ca, "CERTIFICATE"),
            cert=_pem("cert", self.cert, "CERTIFICATE"),
            key=_pem("key", self.key, "PRIVATE KEY"),
        )
        if isinstance(self.cert, os.PathLike) and isinstance(self.key, os.PathLike):
            _check_pair(self.cert, self.key)
        return loaded

    def stamp(self) -> tuple[object, ...]:
        """Return a value that changes with the files; empty without any file."""
        return tuple(
            _stamp(each) for each in (self.ca, self.cert, self.key) if isinstance(each, os.PathLike)
        )


def _pem(name: str, source: bytes | os.PathLike[str] | None, kind: str) -> bytes | None:
    """The file's bytes. Raises `ConfigError` where they hold nothing of that kind."""
    if source is None:
        return None
    where = "…" if isinstance(source, bytes) else str(Path(source))
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as exc:
        raise ConfigError(f"TLSConfig: cannot read {where}: {exc.strerror}") from exc
    blocks = re.findall(rb"-----BEGIN ([A-Z0-9 ]*)-----(.*?)-----END \1-----", data, re.DOTALL)
    bodies = [_decoded(body) for label, body in blocks if label.endswith(kind.encode())]
    _require(
        bool(bodies) and all(bodies),
        f"TLSConfig({name}={where}): expected PEM, -----BEGIN {kind}----- and so on",
    )
    if kind == "PRIVATE KEY":
        _require(
            all(map(_is_key, bodies)),
            f"TLSConfig({name}={where}): not a private key, or one that is encrypted",
        )
    if kind == "CERTIFICATE":
        import ssl  # takes 10 ms that those without TLS need not pay

        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=b"".join(bodies))
        except (ssl.SSLError, ValueError) as exc:
            raise ConfigError(f"TLSConfig({name}={where}): not a certificate: {exc}") from exc
    return data


def _check_pair(cert: os.PathLike[str], key: os.PathLike[str]) -> None:
    """Raise `ConfigError` if the key belongs to another certificate, as amid a rotation."""
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password="")
    except ssl.SSLError as exc:
        _require(
            "MISMATCH" not in (exc.reason or ""),
            f"TLSConfig: the key in {Path(key)} is not the one of the certificate in {Path(cert)}",
        )
    except OSError:  # gone since it was read
        pass


def _stamp(path: os.PathLike[str]) -> tuple[int, ...]:
    try:
        info = os.stat(path)
    except OSError:
        return ()
    return info.st_mtime_ns, info.st_size, info.st_ino


def _decoded(body: bytes) -> bytes:
    """Of a PEM block; empty where it is not base64."""
    try:
        return base64.b64decode(b"".join(body.split()), validate=True)
    except ValueError:
        return b""


def _is_key(der: bytes) -> bool:
    """A sequence as long as it says that begins with a version: PKCS #1 and #8, SEC 1."""
    start = 2 + (der[1] & 0x7F if der[1:2] >= b"\x80" else 0)
    size = int.from_bytes(der[2:start] or der[1:2], "big")
    return der[:1] == b"\x30" and len(der) == start + size and der[start : start + 2] == b"\x02\x01"


Token = str | Callable[[], str]
Metadata = Mapping[str, str | bytes] | Sequence[tuple[str, str | bytes]]


def checked_token(token: object, whose: str = "the token") -> str:
    """Return the token if it can be sent. Raises a `ConfigError` that does not repeat the token."""
    about = f"ChannelConfig(token=…): {whose}"
    if not isinstance(token, str):
        raise ConfigError(f"{about} is a {type(token).__name__}, not a str")
    wrong = sorted({each for each in token if not _TOKEN.fullmatch(each)})
    _require(token, f"{about} is empty")
    _require(
        not wrong,
        f"{about} holds {', '.join(map(repr, wrong))}; only visible ASCII characters can be sent, "
        "without spaces and line breaks",
    )
    return token


def _pairs(field: str, given: Any) -> tuple[tuple[Any, Any], ...]:
    """A mapping's items, or a sequence's pairs."""
    try:
        return tuple((key, value) for key, value in getattr(given, "items", lambda: given)())
    except (TypeError, ValueError) as exc:
        raise ConfigError(
            f"ChannelConfig({field}=…): expected a dict or (key, value) pairs"
        ) from exc


@dataclass(frozen=True, kw_only=True)
class ChannelConfig(_Config):
    """The connection: limits, keepalive, and what travels with every call."""

    metadata: Metadata = ()
    """Custom metadata for every call. Keys are lower case; those of bytes end in `-bin`."""
    token: Token | None = field(default=None, repr=False)
    """A bearer token, or a function that returns the current one, called for every attempt: it
    should return at once (cache the token). Needs TLS, or a target on this machine."""
    interceptors: Sequence[Any] = ()
    """gRPC interceptors, outermost first: `grpc.UnaryUnaryClientInterceptor`s for `Client`,
    `grpc.aio.UnaryUnaryClientInterceptor`s for `AsyncClient`. They see serialised messages."""
    compression: Literal["none", "gzip", "deflate"] = "none"
    """Encoded images do not compress: gzip costs CPU time and pays off only for BMP."""
    wait_for_ready: bool = False
    """Let an attempt wait for the connection, up to the timeout, instead of failing at once."""
    max_message_bytes: int = -1
    """Limit of a message, both ways; -1: the server's limit alone (gRPC's own default is 4 MiB)."""
    keepalive_time: float = 30.0
    """While calls are open, ping a connection that has been silent for so long. A server with
    gRPC's defaults, as TensorFlow Serving, cuts a connection off at the fourth ping without a reply
    in between: where a call may take longer than two minutes, set a quarter of that or more."""
    keepalive_timeout: float = 20.0
    """Give a connection up when a ping has had no answer for so long."""
    connect_timeout: float = 5.0
    """Give up one connection attempt, TLS handshake included, after so long."""
    max_reconnect_backoff: float = 2.0
    """Longest wait between attempts to reconnect."""
    load_balancing: str = "round_robin"
    """gRPC's policy over the addresses of one target's host name (`round_robin`, `pick_first`)."""
    options: Sequence[tuple[str, Any]] = ()
    """Further gRPC channel arguments; they win over the ones made from the fields above."""

    def __post_init__(self) -> None:
        _check(self, "max_message_bytes", low=-1, whole=True)
        _check(self, "keepalive_time", "keepalive_timeout", low=0, above=True)
        _check(self, "connect_timeout", "max_reconnect_backoff", low=0, above=True)
        _require(
            self.compression in ("none", "gzip", "deflate"),
            f"ChannelConfig(compression={self.compression!r}): expected none, gzip or deflate",
        )
        _require(
            isinstance(self.load_balancing, str) and self.load_balancing,
            f"ChannelConfig(load_balancing={self.load_balancing!r}): expected a policy's name, "
            "such as 'round_robin'",
        )
        if self.token is not None and not callable(self.token):
            checked_token(self.token)
        metadata = _pairs("metadata", self.metadata)
        for key, value in metadata:
            _check_header(key, value)
        # Tuples can be hashed, and do not change when the caller changes a dict.
        object.__setattr__(self, "metadata", metadata)
        object.__setattr__(self, "options", _pairs("options", self.options))
        object.__setattr__(self, "interceptors", tuple(self.interceptors))

    def metadata_pairs(self) -> list[tuple[str, str | bytes]]:
        """`metadata` as gRPC takes it."""
        return list(cast("Sequence[tuple[str, str | bytes]]", self.metadata))


def _check_header(key: object, value: object) -> None:
    """Raise `ConfigError` for a pair that gRPC cannot send as metadata."""
    _require(
        isinstance(key, str) and _HEADER_KEY.fullmatch(key),
        f"ChannelConfig(metadata=…): key {key!r} must be a lower-case str: ASCII letters, "
        "digits, '-', '_' and '.'",
    )
    if str(key).endswith("-bin"):
        _require(isinstance(value, bytes), f"ChannelConfig(metadata=…): {key} must be bytes")
        return
    _require(
        isinstance(value, str),
        f"ChannelConfig(metadata=…): {key} must be a str (bytes need a key in -bin)",
    )
    wrong = sorted({each for each in str(value) if not _HEADER.fullmatch(each)})
    _require(
        not wrong,
        f"ChannelConfig(metadata=…): the value of {key} holds {', '.join(map(repr, wrong))}; only "
        "printable ASCII can be sent, other text as bytes under a key in -bin",
    )
