"""The errors of this library.

    FeaturewireError
    ├── ConfigError             the client was set up or used wrongly (also a ValueError)
    ├── ImageError              one image gave no vector; `.reason` says why
    ├── InvalidRequestError     the server refuses the request; retrying does not help
    ├── ModelNotFoundError      the server does not have this model, version or label
    ├── ServerUnavailableError  no server answers at the address, or the connection broke
    ├── OverloadedError         the server is overloaded; `.reason` says which resource is short
    ├── DeadlineExceededError   no reply in time (also a TimeoutError)
    ├── ResponseError           the reply does not fit the request
    │   └── VectorSpaceError    a version without the wanted vector space answered
    └── ServerError             the server failed in another way

A `grpc.RpcError` never reaches the caller directly; it is the `__cause__` of one of these errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from featurewire._advice import ADVICE


class FeaturewireError(Exception):
    """Base class. `.code` is the gRPC status name if a server sent one, such as `NOT_FOUND`.

    The text states the problem and then what to do, using the names of this library's arguments.
    """

    code: str | None = None
    metadata: Mapping[str, str | bytes] = MappingProxyType({})
    """Headers and trailers of the failed call, such as a gateway's `x-request-id`."""
    retry_after: float | None = None
    """Seconds to wait before the next attempt, if the server sent a push-back (gRPC's retry
    design). Negative: do not retry."""
    _text: str = ""
    """The server's text, without the names of server and model."""

    def __init__(self, *args: object, advice: str = "") -> None:
        """`advice`: a key of `ADVICE`. Commands may replace the advice with their own text."""
        super().__init__(*args)
        self._advice = advice

    @property
    def _problem(self) -> str:
        return str(self.args[0]) if self.args else ""

    @property
    def _subject(self) -> str:
        """The argument at fault, as the first part of the text; empty for other errors."""
        return ""

    def __str__(self) -> str:
        advice = f"; {ADVICE[self._advice]}" if self._advice else ""
        return f"{self._subject}{self._problem}{advice}"


class ConfigError(FeaturewireError, ValueError):
    """The client was set up or used incorrectly; no request was sent."""

    def __init__(
        self,
        *args: object,
        advice: str = "",
        argument: str = "",
        value: str = "…",
        config: str = "",
    ) -> None:
        """`argument`: the wrong argument, of the client or of the class named by `config`."""
        super().__init__(*args, advice=advice)
        self._argument, self._value, self._config = argument, value, config

    @property
    def _subject(self) -> str:
        if not self._argument:
            return ""
        given = f"{self._argument}={self._value}"
        return f"{self._config}({given}): " if self._config else f"{given}: "


class UnknownArgumentError(ConfigError, TypeError):
    """An argument has an unknown, probably misspelt, name."""


class ImageError(FeaturewireError):
    """One image did not give a vector.

    `.reason` is a status name of the served version: `empty`, `unsupported`, `too_large`,
    `corrupt`, or `status N` for a number that this client does not know. Or it is one of the
    client's own reasons: `unreadable` (the file could not be read), `rejected` (the server refused
    the image in a request of its own; the `__cause__` says why), `unknown` (the server refused a
    request with this image, perhaps because of another image), `not_finite` (the vector held NaN or
    infinity).
    """

    def __init__(self, message: str, *, reason: str, advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return _image_error, (str(self), self.reason)


def _image_error(message: str, reason: str) -> ImageError:
    return ImageError(message, reason=reason)


class InvalidRequestError(FeaturewireError):
    """The server refuses the request. Retrying does not help."""


class ModelNotFoundError(FeaturewireError):
    """The server does not know the model, version or label, or has not loaded it."""


class ServerUnavailableError(FeaturewireError):
    """No server answers at the address, or the connection broke."""


class OverloadedError(FeaturewireError):
    """The server's queue is full, or it lacks time, memory or a thread for the call.

    `.reason` is `time` if the server cannot answer before the deadline (for HTTP a 504), `queue` if
    its queue is full (a 503), and empty if the server does not say. `Server Threadpool Exhausted`
    means that TensorFlow Serving already runs `--grpc_max_threads` calls, by default 4 per
    processor.
    """

    reason: str = ""


class DeadlineExceededError(FeaturewireError, TimeoutError):
    """No reply in time."""


class ResponseError(FeaturewireError):
    """The reply does not fit the request: rows, dimension, dtype or names are wrong."""


class VectorSpaceError(ResponseError):
    """The version that answered does not give vectors of the client's `vector_space`."""


class ServerError(FeaturewireError):
    """The server failed in another way."""


_SYSTEMIC = re.compile(
    r"ModelSpec|size does not match|tensor alias|version label|expects arg|expected .*dtype|"
    r"incompatible .*type|type mismatch",
    re.IGNORECASE,
)


def is_transient(error: FeaturewireError) -> bool:
    """Whether another attempt can succeed and does no harm."""
    return isinstance(error, (ServerUnavailableError, OverloadedError))


def is_systemic(error: FeaturewireError) -> bool:
    """Whether the text of an INVALID_ARGUMENT blames the request, not one of its images."""
    return isinstance(error, InvalidRequestError) and bool(_SYSTEMIC.search(error._text))


def lacks_signature(error: FeaturewireError) -> bool:
    """Whether the version that answered lacks the requested signature."""
    return error.code == "FAILED_PRECONDITION" and "signature key" in error._text.lower()
