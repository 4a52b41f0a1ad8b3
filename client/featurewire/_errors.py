"""What can go wrong, and the one table that maps gRPC's failures to it.

    FeaturewireError
    ├── ConfigError             the client was set up or used wrongly (also a ValueError)
    ├── ImageError              one image gave no vector; `.reason` says why
    ├── InvalidRequestError     the server refuses the request as it is: retrying is no use
    ├── ModelNotFoundError      the server has no such model, version or label
    ├── ServerUnavailableError  nobody answers at the address, or the connection broke
    ├── OverloadedError         the server has too much work; `.reason` says what it lacks
    ├── DeadlineExceededError   no reply in time (also a TimeoutError)
    ├── ResponseError           a reply came that does not fit the request
    │   └── VectorSpaceError    a version without the wanted vector space answered
    └── ServerError             the server failed in another way

A `grpc.RpcError` never reaches a caller by itself; it is the `__cause__`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

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
    "UnknownArgumentError",
    "VectorSpaceError",
    "from_rpc_error",
    "is_systemic",
    "is_transient",
    "lacks_signature",
]


class FeaturewireError(Exception):
    """The root. `.code` is the gRPC status name where a server sent one, such as `NOT_FOUND`."""

    code: str | None = None
    metadata: Mapping[str, str | bytes] = MappingProxyType({})
    """Headers and trailers that came with the failure, such as a gateway's `x-request-id`."""
    retry_after: float | None = None
    """Seconds after which another attempt may succeed, where the server says so (gRPC's retry
    push-back); negative: the server wants none."""
    _text: str = ""
    """What the server said, without the names of server and model."""


class ConfigError(FeaturewireError, ValueError):
    """The client was set up or used wrongly; no request was sent."""


class UnknownArgumentError(ConfigError, TypeError):
    """An argument has an unknown, probably misspelt, name."""


class ImageError(FeaturewireError):
    """One image gave no vector.

    `.reason` is a status name of the served version (`empty`, `unsupported`, `too_large`,
    `corrupt`, or `status N` for a number that this client does not know), or one of the client's
    own: `unreadable` (the file could not be read), `rejected` (the server refused the image sent
    alone; the `__cause__` says why), `unknown` (it was refused, perhaps for another image),
    `not_finite` (the vector held NaN or infinity).
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
    """The server's queue is full, or it has no time, memory or thread left for the call.

    `.reason` is `time` if it cannot answer before the deadline (for HTTP a 504), `queue` if its
    queue is full (a 503), and empty if the server does not say. `Server Threadpool Exhausted` means
    that TensorFlow Serving runs `--grpc_max_threads` calls already, by default 4 per processor.
    """

    reason: str = ""


class DeadlineExceededError(FeaturewireError, TimeoutError):
    """No reply in time."""


class ResponseError(FeaturewireError):
    """A reply came that does not fit the request: rows, dimension, dtype or names are wrong."""


class VectorSpaceError(ResponseError):
    """A version answered that gives no vectors of the client's `vector_space`."""


class ServerError(FeaturewireError):
    """The server failed in another way."""


_ADVICE = {
    "size": "the message is over a size limit; lower StreamConfig(bytes_per_request=…) or raise "
    "the limit on the side that the text names",
    "load": "send less at once, or add servers",
    "threads": "TensorFlow Serving takes 4 calls per processor at once unless it is started with "
    "--grpc_max_threads=256 or so; set that flag, send less at once, or add servers",
    "not gRPC": "something else than a gRPC server answers there; TensorFlow Serving's gRPC port "
    "is usually 8500, its REST port 8501",
    "TLS": "the TLS handshake failed; check TLSConfig(ca=…, cert=…, key=…, server_name=…) and "
    "whether that port speaks TLS",
    "cut off by TLS": "the server hung up during the TLS handshake or right after it; if it asks "
    "for a client's certificate, set TLSConfig(cert=…, key=…)",
    "perhaps TLS": "the server hung up at once; if that port speaks TLS, set tls=TLSConfig(…)",
    "host name": "TLS: the server's certificate is for another host name; name the one that it is "
    "for with TLSConfig(server_name=…)",
    "DNS": "the host name does not resolve; check the address",
    "address": "check the address and that the server runs (`featurewire status --server …`)",
    "address or TLS": "check the address and that the server runs; if it does, a TLS handshake may "
    "have failed at another address of that name: check TLSConfig(ca=…, cert=…, key=…, "
    "server_name=…)",
    "channel": "check ChannelConfig(load_balancing=…, options=…)",
    "time": "raise timeout=… or send fewer images",
    "silent": "nothing has ever answered there; check the address, or raise timeout=…",
    "model": "check model=…, version=… and label=…; a model that is still loading answers once it "
    "is AVAILABLE: wait_until_ready()",
    "label": "the server's config gives no version this label; check label=…",
    "signature": "name one of the signatures that metadata() lists with signature=…",
    "API": "the server there does not speak TensorFlow Serving's gRPC API; check host and port",
    "token": "check ChannelConfig(token=…) and TLSConfig(…)",
    "rights": "check ChannelConfig(token=…, metadata=…)",
}

_REQUEST_IDS = {"x-request-id", "request-id"}
"""Metadata that an error's text repeats: operators search a gateway's log for it."""
_NOT_GRPC = r"http/?1|header with status|receiving SETTINGS|expected SETTINGS|parsing HTTP/2"
_HUNG_UP = r"socket closed|connection reset|broken pipe|end of (file|tcp stream)|\bEOF\b"
_CUT_OFF = r"RST_STREAM|goaway|connection|stream (removed|closed)"

# Code, pattern, error, advice. Most specific first: the first rule that fits decides.
_RULES: list[tuple[str, str, type[FeaturewireError], str]] = [
    ("", r"^failed to create channel", ConfigError, "channel"),
    ("RESOURCE_EXHAUSTED", r"larger than max|message .*too large", InvalidRequestError, "size"),
    ("RESOURCE_EXHAUSTED", r"threadpool exhausted", OverloadedError, "threads"),
    ("RESOURCE_EXHAUSTED", "", OverloadedError, "load"),
    ("UNAVAILABLE", r"queue .*is full", OverloadedError, "load"),
    ("UNAVAILABLE", _NOT_GRPC, ServerUnavailableError, "not gRPC"),
    ("UNAVAILABLE", r"hostname verif|peer name|ssl.*host", ServerUnavailableError, "host name"),
    ("UNAVAILABLE", r"ssl|tls|handshake|certificate", ServerUnavailableError, "TLS"),
    ("UNAVAILABLE", r"DNS|resol", ServerUnavailableError, "DNS"),
    ("UNAVAILABLE", "", ServerUnavailableError, "address"),
    ("DEADLINE_EXCEEDED", "", DeadlineExceededError, "time"),
    ("NOT_FOUND", "", ModelNotFoundError, "model"),
    ("INVALID_ARGUMENT", r"servable version label", ModelNotFoundError, "label"),
    ("FAILED_PRECONDITION", r"signature key", InvalidRequestError, "signature"),
    ("INVALID_ARGUMENT", "", InvalidRequestError, ""),
    ("FAILED_PRECONDITION", "", InvalidRequestError, ""),
    ("OUT_OF_RANGE", "", InvalidRequestError, ""),
    ("UNIMPLEMENTED", "", ServerError, "API"),
    ("UNAUTHENTICATED", "", InvalidRequestError, "token"),
    ("PERMISSION_DENIED", "", InvalidRequestError, "rights"),
    # A connection that a proxy or a dying server cuts off shows as one of these.
    ("CANCELLED", "", ServerUnavailableError, ""),
    ("ABORTED", "", ServerUnavailableError, ""),
    ("INTERNAL", _CUT_OFF, ServerUnavailableError, ""),
    ("UNKNOWN", r"stream removed|connection", ServerUnavailableError, ""),
    ("UNKNOWN", r"header with status", ServerUnavailableError, "not gRPC"),
    ("", "", ServerError, ""),
]


_SYSTEMIC = re.compile(
    r"ModelSpec|size does not match|tensor alias|version label|expects arg|expected .*dtype|"
    r"incompatible .*type|type mismatch",
    re.IGNORECASE,
)


def is_transient(error: FeaturewireError) -> bool:
    """Another attempt can succeed, and cannot do harm."""
    return isinstance(error, (ServerUnavailableError, OverloadedError))


def is_systemic(error: FeaturewireError) -> bool:
    """The text of an INVALID_ARGUMENT blames the request, and no image of it."""
    return isinstance(error, InvalidRequestError) and bool(_SYSTEMIC.search(error._text))


def lacks_signature(error: FeaturewireError) -> bool:
    """The version that answered has no signature of that name."""
    return error.code == "FAILED_PRECONDITION" and "signature key" in error._text.lower()


def from_rpc_error(
    exc: grpc.RpcError,
    *,
    target: str,
    model: str,
    answered: bool = True,
    tls: bool = False,
    proxy: str | None = None,
) -> FeaturewireError:
    """Translate an error of gRPC, which becomes the cause.

    Args:
        answered: This server has replied before.
        tls: The connection is encrypted.
        proxy: The environment variable whose proxy the connection goes through.
    """
    status = exc.code() if hasattr(exc, "code") else None
    code = status.name if isinstance(status, grpc.StatusCode) else "UNKNOWN"
    details = (exc.details() if hasattr(exc, "details") else None) or str(exc) or code
    # A model may be called as the words that are looked for.
    text = re.sub(rf"(?<!\w){re.escape(model)}(?!\w)", "", details)
    kind, advice = next(
        (kind, advice)
        for rule, pattern, kind, advice in _RULES
        if rule in ("", code) and re.search(pattern, text, re.IGNORECASE)
    )
    if advice == "time" and not answered:
        advice = "silent"
    elif advice == "address" and not answered and re.search(_HUNG_UP, text, re.IGNORECASE):
        advice = "cut off by TLS" if tls else "perhaps TLS"
    elif advice == "address" and not answered and tls:
        advice = "address or TLS"
    metadata = _metadata(exc)
    message = f"{target}, model {model!r}: {' '.join(details.split())}"
    for key in sorted(_REQUEST_IDS & metadata.keys()):
        message += f" ({key}: {metadata[key]!s})"
    if advice:
        message += f"; {_ADVICE[advice]}"
    if proxy is not None and (kind is ServerUnavailableError or advice == "silent"):
        message += (
            f"; the connection goes through the proxy in the environment variable {proxy}: if it "
            "should not, unset the variable, or add the host to no_proxy"
        )
    error = kind(message)
    error.code = code
    error.metadata = metadata
    error.retry_after = _pushback(metadata)
    if isinstance(error, OverloadedError):
        reason = metadata.get("featurewire-overload", "")
        error.reason = str(reason) or ("queue" if code == "UNAVAILABLE" else "")
    error._text = text
    error.__cause__ = exc
    return error


def _metadata(exc: grpc.RpcError) -> dict[str, str | bytes]:
    """Headers and trailers."""
    return {
        key: value
        for name in ("initial_metadata", "trailing_metadata")
        if hasattr(exc, name)
        for key, value in getattr(exc, name)() or ()
    }


def _pushback(metadata: Mapping[str, str | bytes]) -> float | None:
    """Seconds of `grpc-retry-pushback-ms`. What is not a number means "do not retry".

    https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback
    """
    value = metadata.get("grpc-retry-pushback-ms")
    if value is None:
        return None
    return int(value) / 1000 if str(value).isdecimal() else -1.0
