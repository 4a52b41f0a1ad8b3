"""The one table that maps gRPC's failures to the errors of this library."""

from __future__ import annotations

import re
from collections.abc import Mapping

import grpc

from featurewire._errors import (
    ConfigError,
    DeadlineExceededError,
    FeaturewireError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    ServerError,
    ServerUnavailableError,
)

_REQUEST_IDS = {"x-request-id", "request-id"}
"""Metadata that error texts include, because operators search a gateway's log for them."""
_NOT_GRPC = r"http/?1|header with status|receiving SETTINGS|expected SETTINGS|parsing HTTP/2"
_HUNG_UP = r"socket closed|connection reset|broken pipe|end of (file|tcp stream)|\bEOF\b"
_REFUSED_BY_PROXY = r"HTTP proxy returned"
_LATE = r"(stream removed \()?deadline exceeded\)?"
_ADVISED = r"or add servers"
"""The end of the embedded server's texts, which say what to do."""
_CUT_OFF = r"RST_STREAM|goaway|connection|stream (removed|closed)"

# Status code, pattern, error class, advice. The first rule that matches wins.
_RULES: list[tuple[str, str, type[FeaturewireError], str]] = [
    ("", r"^failed to create channel", ConfigError, "channel"),
    ("RESOURCE_EXHAUSTED", r"larger than max|message .*too large", InvalidRequestError, "size"),
    ("RESOURCE_EXHAUSTED", r"threadpool exhausted", OverloadedError, "threads"),
    ("RESOURCE_EXHAUSTED", _ADVISED, OverloadedError, ""),
    ("RESOURCE_EXHAUSTED", "", OverloadedError, "load"),
    ("UNAVAILABLE", rf"queue .*is full.*{_ADVISED}", OverloadedError, ""),
    ("UNAVAILABLE", r"queue .*is full", OverloadedError, "load"),
    ("UNAVAILABLE", _REFUSED_BY_PROXY, ServerUnavailableError, "proxy"),
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
    # If a proxy or a dying server cuts the connection, gRPC reports one of these.
    ("CANCELLED", "", ServerUnavailableError, ""),
    ("ABORTED", "", ServerUnavailableError, ""),
    ("INTERNAL", _CUT_OFF, ServerUnavailableError, ""),
    ("UNKNOWN", r"stream removed|connection", ServerUnavailableError, ""),
    ("UNKNOWN", r"header with status", ServerUnavailableError, "not gRPC"),
    ("", "", ServerError, ""),
]


def from_rpc_error(
    exc: grpc.RpcError,
    *,
    target: str,
    model: str,
    answered: bool = True,
    tls: bool = False,
    proxy: str | None = None,
    timeout: float | None = None,
) -> FeaturewireError:
    """The error of this library for an error of gRPC, which becomes its `__cause__`.

    Args:
        answered: This server has replied before.
        tls: The connection is encrypted.
        proxy: The environment variable whose proxy the connection goes through.
        timeout: Seconds that the attempt had.
    """
    status = exc.code() if hasattr(exc, "code") else None
    code = status.name if isinstance(status, grpc.StatusCode) else "UNKNOWN"
    details = (exc.details() if hasattr(exc, "details") else None) or str(exc) or code
    # The model's name may contain one of the patterns.
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
    what = " ".join(details.split())
    if advice == "proxy":
        what = f"the proxy in {proxy or 'the environment'} refuses the connection ({what})"
    elif timeout is not None and re.fullmatch(_LATE, what, re.IGNORECASE):
        what = f"no reply within {timeout:.3g} s"
    message = f"{target}, model {model!r}: {what}"
    for key in sorted(_REQUEST_IDS & metadata.keys()):
        message += f" ({key}: {metadata[key]!s})"
    uses_proxy = proxy is not None and advice != "proxy"
    if uses_proxy and (kind is ServerUnavailableError or advice == "silent"):
        message += (
            f"; the connection goes through the proxy in {proxy}; to bypass it, add the host to "
            "no_proxy"
        )
    error = kind(message, advice=advice)
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
    """Seconds of `grpc-retry-pushback-ms`. Negative ("do not retry") if it is not a number.

    https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback
    """
    value = metadata.get("grpc-retry-pushback-ms")
    if value is None:
        return None
    return int(value) / 1000 if str(value).isdecimal() else -1.0
