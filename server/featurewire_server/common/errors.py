"""ServingError, the only error type that crosses the server's layers.

The layers below the transports raise it with TensorFlow Serving's code and text. gRPC sends both
unchanged; REST maps the code to an HTTP status.
"""

from __future__ import annotations

from functools import partial

import grpc

_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


class ServingError(Exception):
    """A request or a load failed. `code` and `message` are those of TensorFlow Serving."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        retry_after: float | None = None,
        reason: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after
        """Seconds after which another attempt may succeed; None: unknown."""
        self.reason = reason
        """Why an overloaded server refuses: `time` (the deadline is too near) or `queue` (full)."""

    @property
    def number(self) -> int:
        """The canonical number of `code`: the value of `tensorflow.error.Code`."""
        number: int = self.code.value[0]
        return number


invalid_argument = partial(ServingError, grpc.StatusCode.INVALID_ARGUMENT)
not_found = partial(ServingError, grpc.StatusCode.NOT_FOUND)
failed_precondition = partial(ServingError, grpc.StatusCode.FAILED_PRECONDITION)
unavailable = partial(ServingError, grpc.StatusCode.UNAVAILABLE)
resource_exhausted = partial(ServingError, grpc.StatusCode.RESOURCE_EXHAUSTED)
unimplemented = partial(ServingError, grpc.StatusCode.UNIMPLEMENTED)
internal = partial(ServingError, grpc.StatusCode.INTERNAL)
cancelled = partial(ServingError, grpc.StatusCode.CANCELLED)
deadline_exceeded = partial(ServingError, grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
shutting_down = partial(unavailable, "The server is shutting down")


def from_exception(error: BaseException) -> ServingError:
    """`error` as a ServingError: TensorFlow's errors keep code and text, others are INTERNAL.

    A ValueError or TypeError is also INTERNAL, wherever it was raised. Code that knows that the
    request is at fault raises `invalid_argument`, because clients then look for a bad image. We
    recognise TensorFlow's `OpError` by its name, to avoid importing TensorFlow.
    """
    if isinstance(error, ServingError):
        return error
    number = getattr(error, "error_code", None)
    if number in _BY_NUMBER and any(kind.__name__ == "OpError" for kind in type(error).__mro__):
        return ServingError(_BY_NUMBER[number], getattr(error, "message", None) or str(error))
    if isinstance(error, MemoryError):
        return resource_exhausted(f"Out of memory: {error}")
    return internal(f"{type(error).__name__}: {error}")


def from_run(error: BaseException) -> ServingError:
    """A session's error as a ServingError, without the Python stack that built the graph, which
    does not help a caller."""
    found = from_exception(error)
    return ServingError(found.code, found.message.split("\n\nOriginal stack trace", 1)[0].strip())
