"""What can go wrong, and the one table that maps gRPC's failures to it.

    FeaturewireError
    ├── ConfigError             the client was set up or used wrongly (also a ValueError)
    ├── ImageError              one image gave no vector; `.reason` says why
    ├── InvalidRequestError     the server refuses the request as it is: retrying is no use
    ├── ModelNotFoundError      the server has no such model, version or label
    ├── ServerUnavailableError  nobody answers at the address, or the connection broke
    ├── OverloadedError         the server's queue is full
    ├── DeadlineExceededError   no reply in time (also a TimeoutError)
    ├── ResponseError           a reply came that does not fit the request
    └── ServerError             the server failed in another way

A `grpc.RpcError` never reaches a caller by itself; it is the `__cause__`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import grpc

__all__ = [
    "ConfigError",
    "DeadlineExceededError",
    "FeaturewireError",
    "ImageError",
    "InvalidRequestError",
    "ModelNotFoundError",
    "OverloadedError",
    "ResponseError",
    "ServerError",
    "ServerUnavailableError",
    "from_rpc_error",
    "is_systemic",
]


class FeaturewireError(Exception):
    """The root. `.code` is the gRPC status name where a server sent one, such as `NOT_FOUND`."""

    code: str | None = None


class ConfigError(FeaturewireError, ValueError):
    """The client was set up or used wrongly; no request was sent."""


class ImageError(FeaturewireError):
    """One image gave no vector.

    `.reason` is a status name of the served version (`empty`, `unsupported`, `too_large`,
    `corrupt`, or `status N` for a number that this client does not know), or one of the client's
    own: `unreadable` (the file could not be read), `rejected` (the server refused the image sent
    alone; the `__cause__` says why), `not_finite` (the vector held NaN or infinity).
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return _image_error, (str(self), self.reason)


def _image_error(message: str, reason: str) -> ImageError:
    return ImageError(message, reason=reason)


class InvalidRequestError(FeaturewireError):
    """The server refuses the request as it is: retrying is no use."""


class ModelNotFoundError(FeaturewireError):
    """The server has no such model, version or label, or has not loaded it."""


class ServerUnavailableError(FeaturewireError):
    """Nobody answers at the address, or the connection broke."""


class OverloadedError(FeaturewireError):
    """The server's queue is full."""


class DeadlineExceededError(FeaturewireError, TimeoutError):
    """No reply in time."""


class ResponseError(FeaturewireError):
    """A reply came that does not fit the request: rows, dimension, dtype or names are wrong."""


class ServerError(FeaturewireError):
    """The server failed in another way."""


class _Rule(NamedTuple):
    code: str
    pattern: str
    error: type[FeaturewireError]
    advice: str = ""


# Most specific first: the first rule whose code and pattern fit decides.
_RULES = [
    _Rule(
        "RESOURCE_EXHAUSTED",
        r"larger than max|message .*too large",
        InvalidRequestError,
        "the message is over a size limit; lower StreamConfig(bytes_per_request=…) or raise "
        "the limit on the side that the text names",
    ),
    _Rule("RESOURCE_EXHAUSTED", "", OverloadedError, "send less at once, or add servers"),
    _Rule("UNAVAILABLE", r"queue .*is full", OverloadedError, "send less at once, or add servers"),
    _Rule(
        "UNAVAILABLE",
        r"http1|http/1|http2 header with status|before receiving SETTINGS",
        ServerUnavailableError,
        "something else than a gRPC server answers there; TensorFlow Serving's gRPC port is "
        "usually 8500, its REST port 8501",
    ),
    _Rule(
        "UNAVAILABLE",
        r"ssl|tls|handshake|certificate",
        ServerUnavailableError,
        "the TLS handshake failed; check TLSConfig(ca=…, cert=…, key=…, server_name=…) and "
        "whether that port speaks TLS",
    ),
    _Rule(
        "UNAVAILABLE",
        r"DNS|resol",
        ServerUnavailableError,
        "the host name does not resolve; check the address",
    ),
    _Rule(
        "UNAVAILABLE",
        "",
        ServerUnavailableError,
        "check the address and that the server runs (`featurewire status --server …`)",
    ),
    _Rule("DEADLINE_EXCEEDED", "", DeadlineExceededError, "raise timeout=… or send fewer images"),
    _Rule(
        "NOT_FOUND",
        "",
        ModelNotFoundError,
        "check model=…, version=… and label=…; a model that is still loading answers once it is "
        "AVAILABLE: wait_until_ready()",
    ),
    _Rule(
        "INVALID_ARGUMENT",
        r"servable version label",
        ModelNotFoundError,
        "the server's config gives no version this label; check label=…",
    ),
    _Rule(
        "FAILED_PRECONDITION",
        r"signature key",
        InvalidRequestError,
        "name one of the signatures that metadata() lists with signature=…",
    ),
    _Rule("INVALID_ARGUMENT", "", InvalidRequestError),
    _Rule("FAILED_PRECONDITION", "", InvalidRequestError),
    _Rule("OUT_OF_RANGE", "", InvalidRequestError),
    _Rule(
        "UNIMPLEMENTED",
        "",
        ServerError,
        "the server there does not speak TensorFlow Serving's gRPC API; check host and port",
    ),
    _Rule(
        "UNAUTHENTICATED", "", InvalidRequestError, "check ChannelConfig(token=…) and TLSConfig(…)"
    ),
    _Rule("PERMISSION_DENIED", "", InvalidRequestError, "check ChannelConfig(token=…, metadata=…)"),
    # A connection that a proxy or a dying server cuts off shows as one of these.
    _Rule("CANCELLED", "", ServerUnavailableError),
    _Rule("ABORTED", "", ServerUnavailableError),
    _Rule(
        "INTERNAL",
        r"RST_STREAM|goaway|connection|stream (removed|closed)",
        ServerUnavailableError,
    ),
    _Rule("UNKNOWN", r"stream removed|connection", ServerUnavailableError),
    _Rule(
        "UNKNOWN",
        r"http2 header with status",
        ServerUnavailableError,
        "something else than a gRPC server answers there; TensorFlow Serving's gRPC port is "
        "usually 8500, its REST port 8501",
    ),
    _Rule("", "", ServerError),
]


_SYSTEMIC = re.compile(
    r"ModelSpec|size does not match|tensor alias|version label|expects arg|expected .*dtype|"
    r"incompatible .*type|type mismatch",
    re.IGNORECASE,
)


def is_systemic(error: FeaturewireError) -> bool:
    """The text of an INVALID_ARGUMENT blames the request, and no image of it."""
    return isinstance(error, InvalidRequestError) and bool(_SYSTEMIC.search(str(error)))


def from_rpc_error(
    exc: grpc.RpcError, *, target: str, model: str, answered: bool = True
) -> FeaturewireError:
    """The error of ours for one of gRPC's, with `exc` as its cause.

    `answered`: this server has replied before.
    """
    status = exc.code() if hasattr(exc, "code") else None
    code = status.name if isinstance(status, grpc.StatusCode) else "UNKNOWN"
    details = (exc.details() if hasattr(exc, "details") else None) or str(exc) or code
    rule = next(
        rule
        for rule in _RULES
        if rule.code in ("", code) and re.search(rule.pattern, details, re.IGNORECASE)
    )
    text = " ".join(details.split())
    message = f"{target}, model {model!r}: {text}"
    advice = rule.advice
    if rule.error is DeadlineExceededError and not answered:
        advice = "nothing has ever answered there; check the address, or raise timeout=…"
    error = rule.error(f"{message}; {advice}" if advice else message)
    error.code = code
    error.__cause__ = exc
    return error
