"""HTTP requests and answers, errors in TensorFlow Serving's form, and gzip bodies."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import grpc

from featurewire_server.api import Call
from featurewire_server.common.admission import Admission, Hold
from featurewire_server.common.errors import ServingError, deadline_exceeded, invalid_argument
from featurewire_server.transport.rest import encode

_HTTP_STATUS = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}

MAX_TEXT = 1024
"""Maximum number of characters in an endpoint's error text, as in gRPC."""


@dataclass(kw_only=True)
class Request:
    """An HTTP request. `path` includes the query and is percent-encoded; `body` is as sent."""

    method: str
    path: str
    encoding: str = ""
    """The Content-Encoding header in lower case, or empty."""
    json_bytes: str = ""
    """The Inference-Header-Content-Length header: the bytes of JSON in the body; empty: all."""
    origin: str = ""
    """The Origin header, which browsers send for a page, or empty."""
    call: Call
    body: bytes = b""

    @property
    def packed(self) -> bool:
        """Whether the body is gzip. Other encodings are ignored, as in TensorFlow Serving."""
        return "gzip" in self.encoding


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


def failure(error: ServingError) -> Answer:
    """The answer for an error, in TensorFlow Serving's form."""
    body = encode.error(error.message).encode()
    headers: tuple[tuple[str, str], ...] = ()
    if error.retry_after is not None:
        headers = (("Retry-After", str(max(math.ceil(error.retry_after), 1))),)
    return Answer(status=_HTTP_STATUS.get(error.code, 500), body=body, headers=headers)


def refusal(status: int, text: str) -> Answer:
    """The answer to a request that HTTP does not allow, such as one whose body is too large."""
    return Answer(status=status, body=encode.error(text).encode())


class Endpoint:
    """A further protocol, with separate paths. Errors have TensorFlow Serving's form by default."""

    api: str
    """The name of its inference call, for the metrics."""

    def takes(self, path: str) -> bool:
        """Whether `path`, which includes the query, belongs to the protocol."""
        raise NotImplementedError

    async def answer(self, request: Request) -> Answer:
        """Answer a request. Raises ServingError."""
        raise NotImplementedError

    def failure(self, error: ServingError) -> Answer:
        answer = failure(error)
        return replace(answer, body=self.refusal(answer.status, error.message).body)

    def refusal(self, status: int, text: str) -> Answer:
        return refusal(status, text[:MAX_TEXT])


@contextmanager
def unpacked(request: Request, admission: Admission, limit: int) -> Iterator[tuple[bytes, Hold]]:
    """The unpacked body, and a Hold for its memory, to which the caller may add.

    Raises DEADLINE_EXCEEDED if the deadline has passed, INVALID_ARGUMENT for a bad gzip body.
    """
    if request.call.late():
        raise deadline_exceeded()
    body, hold = request.body, admission.hold()
    try:
        if request.packed:
            chunks = []
            for chunk in gunzip(body, limit):
                hold.resize(hold.size + len(chunk))
                chunks.append(chunk)
            body = b"".join(chunks)
        yield body, hold
    finally:
        hold.resize(0)


def gunzip(body: bytes, limit: int) -> Iterator[bytes]:
    """Unpack `body` in chunks of up to 1 MiB.

    Raises INVALID_ARGUMENT if it is not gzip, is truncated, or unpacks to over `limit` bytes.
    """
    unpacker = zlib.decompressobj(wbits=31)
    size, rest = 0, body
    while not unpacker.eof:
        try:
            chunk = unpacker.decompress(rest, 1 << 20)
        except zlib.error as error:
            raise invalid_argument(f"The gzip body cannot be read: {error}") from None
        size, rest = size + len(chunk), unpacker.unconsumed_tail
        if size > limit or not (chunk or unpacker.eof):
            raise invalid_argument(
                f"The gzip body is truncated or unpacks to more than {limit} bytes"
            )
        yield chunk
