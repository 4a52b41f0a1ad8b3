"""What can go wrong.

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

from featurewire._advice import ADVICE

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
    "is_systemic",
    "is_transient",
    "lacks_signature",
]


class FeaturewireError(Exception):
    """The root. `.code` is the gRPC status name where a server sent one, such as `NOT_FOUND`.

    The text says what the problem is and then what to do, in the names of this library's arguments.
    """

    code: str | None = None
    metadata: Mapping[str, str | bytes] = MappingProxyType({})
    """Headers and trailers that came with the failure, such as a gateway's `x-request-id`."""
    retry_after: float | None = None
    """Seconds after which another attempt may succeed, where the server says so (gRPC's retry
    push-back); negative: the server wants none."""
    _text: str = ""
    """What the server said, without the names of server and model."""

    def __init__(self, *args: object, advice: str = "") -> None:
        """`advice`: a key of `ADVICE`, which a command words in its own way."""
        super().__init__(*args)
        self._advice = advice

    @property
    def _problem(self) -> str:
        return str(self.args[0]) if self.args else ""

    @property
    def _subject(self) -> str:
        """What the problem is with, where it is an argument."""
        return ""

    def __str__(self) -> str:
        advice = f"; {ADVICE[self._advice]}" if self._advice else ""
        return f"{self._subject}{self._problem}{advice}"


class ConfigError(FeaturewireError, ValueError):
    """The client was set up or used wrongly; no request was sent."""

    def __init__(
        self,
        *args: object,
        advice: str = "",
        argument: str = "",
        value: str = "…",
        config: str = "",
    ) -> None:
        """`argument`: the one that is wrong, of the client or of the class `config`."""
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
    """One image gave no vector.

    `.reason` is a status name of the served version (`empty`, `unsupported`, `too_large`,
    `corrupt`, or `status N` for a number that this client does not know), or one of the client's
    own: `unreadable` (the file could not be read), `rejected` (the server refused the image sent
    alone; the `__cause__` says why), `unknown` (it was refused, perhaps for another image),
    `not_finite` (the vector held NaN or infinity).
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
