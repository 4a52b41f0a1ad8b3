"""Answers one HTTP request with an `Api`: everything of REST but the socket."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import grpc

from featurewire._tfs.get_model_metadata_pb2 import GetModelMetadataRequest
from featurewire._tfs.get_model_status_pb2 import GetModelStatusRequest
from featurewire._tfs.meta_graph_pb2 import TensorInfo
from featurewire._tfs.model_pb2 import ModelSpec
from featurewire._tfs.predict_pb2 import PredictRequest
from featurewire_server._tfs.classification_pb2 import ClassificationRequest
from featurewire_server._tfs.regression_pb2 import RegressionRequest
from featurewire_server.api import Api, Call
from featurewire_server.common.errors import (
    ServingError,
    deadline_exceeded,
    failed_precondition,
    from_exception,
    invalid_argument,
)
from featurewire_server.common.loop import JSON, by_size
from featurewire_server.messages import tensors
from featurewire_server.transport.rest import decode, document, encode, examples, routes

log = logging.getLogger(__name__)

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

_CORS = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Methods", "POST, GET"),
    ("Access-Control-Allow-Headers", "Content-Type"),
)


@dataclass(kw_only=True)
class Request:
    """What came: `path` still percent-encoded and with its query, `body` as it was sent."""

    method: str
    path: str
    encoding: str = ""
    """Content-Encoding, in lower case; empty for none."""
    origin: str = ""
    """The Origin of a page that calls from a browser; empty for none."""
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
    """An error in TensorFlow Serving's shape."""
    body = encode.error(error.message).encode()
    headers: tuple[tuple[str, str], ...] = ()
    if error.retry_after is not None:
        headers = (("Retry-After", str(max(math.ceil(error.retry_after), 1))),)
    return Answer(status=_HTTP_STATUS.get(error.code, 500), body=body, headers=headers)


def refusal(status: int, text: str) -> Answer:
    """What HTTP itself says of a request that it does not take."""
    return Answer(status=status, body=encode.error(text).encode())


class Handler:
    """Answers requests; `__call__` never raises."""

    def __init__(
        self,
        api: Api,
        *,
        cors: bool = False,
        max_body_bytes: int,
    ) -> None:
        self._api = api
        self._cors = _CORS if cors else ()
        self._max_body_bytes = max_body_bytes
        self._verbs: dict[str, Callable[[routes.Route, Request], Awaitable[str]]] = {
            "predict": self._predict,
            "classify": self._classify,
            "regress": self._regress,
            "status": self._status,
            "metadata": self._metadata,
        }

    async def __call__(self, request: Request) -> Answer:
        try:
            answer = await self._answer(request)
            request.call.held.resize(len(answer.body))
        except asyncio.CancelledError:
            self._api.count(request.call, request.call.cancellation_code())
            raise
        except Exception as error:
            found = from_exception(error)
            if found.code is grpc.StatusCode.INTERNAL and found is not error:
                log.exception("%s %s failed", request.method, request.path)
            return self._failed(request, found)
        self._api.count(request.call, grpc.StatusCode.OK)
        return self._with_cors(answer)

    def refuse(self, request: Request, error: ServingError) -> Answer:
        """The answer to a request that is not read, because of `error`."""
        with suppress(ServingError):
            self._route(request)
        return self._failed(request, error)

    def _failed(self, request: Request, error: ServingError) -> Answer:
        self._api.count(request.call, error.code)
        return self._with_cors(failure(error))

    def _with_cors(self, answer: Answer) -> Answer:
        return replace(answer, headers=(*answer.headers, *self._cors))

    def _route(self, request: Request) -> routes.Route:
        route = routes.find(request.method, request.path)
        request.call.api, request.call.model = route.verb.capitalize(), route.name
        return route

    async def _answer(self, request: Request) -> Answer:
        metrics = self._api.metrics
        if metrics.path and request.path.partition("?")[0] == metrics.path:
            if request.method != "GET":
                raise routes.malformed(request.method, request.path)
            return Answer(status=200, body=metrics.page(), content_type=metrics.content_type)
        if request.method == "OPTIONS":
            return _preflight(request)
        route = self._route(request)
        return Answer(status=200, body=(await self._verbs[route.verb](route, request)).encode())

    async def _predict(self, route: routes.Route, request: Request) -> str:
        self._require_time(route, request)
        message, rows = await by_size(
            JSON * len(request.body), self._predict_request, route, request
        )
        response = await self._api.predict(message, request.call)
        size = JSON * request.call.answer_bytes
        return await by_size(size, encode.predict, response.outputs, rows=rows)

    def _require_time(self, route: routes.Route, request: Request) -> None:
        """Refuse before it is parsed what could not be answered in time anyhow."""
        if request.packed:
            return
        try:
            self._api.require_time(route.model_spec(), request.call)
        except ServingError:  # only now, because it is a search through the whole body
            if b'"signature_name"' not in request.body:  # else another signature may be meant
                raise

    def _predict_request(
        self, route: routes.Route, request: Request
    ) -> tuple[PredictRequest, bool]:
        """The message, and whether the answer is to be in rows."""
        with self._document(request) as found:
            spec = route.model_spec(decode.signature_name(found))
            infos = self._infos(spec)
            rows = decode.is_row_form(found)
            message = PredictRequest(model_spec=spec)
            for name, array in decode.inputs(found, infos).items():
                content = array.dtype != object  # of strings that would be one more copy
                message.inputs[name].CopyFrom(tensors.encode(array, content=content))
            return message, rows

    def _infos(self, spec: ModelSpec) -> Mapping[str, TensorInfo]:
        name = spec.signature_name
        try:
            _, signature = self._api.signature(spec)
        except ServingError as error:
            if error.code is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
            raise invalid_argument(
                f'Serving signature name: "{name or "serving_default"}" not found in signature def'
            ) from None
        if not signature.inputs:
            raise invalid_argument(f"Failed to get input map for signature: {name or 'DEFAULT'}")
        return signature.inputs

    async def _classify(self, route: routes.Route, request: Request) -> str:
        message = ClassificationRequest()
        await by_size(JSON * len(request.body), self._fill, message, route, request)
        return encode.classify((await self._api.classify(message, request.call)).result)

    async def _regress(self, route: routes.Route, request: Request) -> str:
        message = RegressionRequest()
        await by_size(JSON * len(request.body), self._fill, message, route, request)
        return encode.regress((await self._api.regress(message, request.call)).result)

    def _fill(
        self,
        message: ClassificationRequest | RegressionRequest,
        route: routes.Route,
        request: Request,
    ) -> None:
        with self._document(request) as found:
            message.model_spec.CopyFrom(route.model_spec(decode.signature_name(found)))
            message.input.CopyFrom(examples.read(found))

    async def _status(self, route: routes.Route, request: Request) -> str:
        message = GetModelStatusRequest(model_spec=route.model_spec())
        return encode.status(await self._api.get_model_status(message, request.call))

    async def _metadata(self, route: routes.Route, request: Request) -> str:
        message = GetModelMetadataRequest(
            model_spec=route.model_spec(), metadata_field=["signature_def"]
        )
        return encode.metadata(await self._api.get_model_metadata(message, request.call))

    @contextmanager
    def _document(self, request: Request) -> Iterator[dict[str, Any]]:
        """The request's JSON document; what it takes in memory is admitted for the body."""
        if request.call.late():
            raise deadline_exceeded()
        body, hold = request.body, self._api.admission.hold()
        try:
            if request.packed:
                chunks = []
                for chunk in gunzip(body, self._max_body_bytes):
                    hold.resize(hold.size + len(chunk))
                    chunks.append(chunk)
                body = b"".join(chunks)
            hold.resize(hold.size + document.footprint(body))
            yield document.parse(body)
        finally:
            hold.resize(0)


def _preflight(request: Request) -> Answer:
    """What a browser asks before it sends a page's request to another origin."""
    if not request.path.lower().startswith("/v1/"):
        raise routes.malformed(request.method, request.path)
    if not re.search("https?://", request.origin):
        raise failed_precondition("Origin header is missing in CORS preflight")
    return Answer(status=200)


def gunzip(body: bytes, limit: int) -> Iterator[bytes]:
    """`body` unpacked, a MiB at a time.

    Raises INVALID_ARGUMENT when it is not gzip or unpacks to over `limit` bytes.
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
            raise invalid_argument(f"The gzip body is cut short or unpacks to over {limit} bytes")
        yield chunk
