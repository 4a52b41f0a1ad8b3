"""Answers HTTP requests by calling an `Api`: all of REST except for the connections."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import grpc

from featurewire._tfs.get_model_metadata_pb2 import GetModelMetadataRequest
from featurewire._tfs.get_model_status_pb2 import GetModelStatusRequest
from featurewire._tfs.meta_graph_pb2 import TensorInfo
from featurewire._tfs.model_pb2 import ModelSpec
from featurewire._tfs.predict_pb2 import PredictRequest
from featurewire_server._tfs.classification_pb2 import ClassificationRequest
from featurewire_server._tfs.regression_pb2 import RegressionRequest
from featurewire_server.api import Api
from featurewire_server.common.errors import (
    ServingError,
    failed_precondition,
    from_exception,
    invalid_argument,
)
from featurewire_server.common.loop import JSON, by_size
from featurewire_server.messages import tensors
from featurewire_server.transport.rest import decode, document, encode, examples, routes
from featurewire_server.transport.rest.exchange import (
    Answer,
    Endpoint,
    Request,
    failure,
    refusal,
    unpacked,
)

log = logging.getLogger(__name__)

_CORS = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Methods", "POST, GET"),
    ("Access-Control-Allow-Headers", "Content-Type"),
)


class Handler:
    """Answers requests; `__call__` turns every error into an answer."""

    def __init__(
        self,
        api: Api,
        *,
        cors: bool = False,
        max_body_bytes: int,
        endpoints: Sequence[Endpoint] = (),
    ) -> None:
        """`endpoints`: protocols in addition to TensorFlow Serving's."""
        self._api = api
        self._endpoints = endpoints
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
        endpoint = self._endpoint(request)
        try:
            if request.method == "OPTIONS":
                answer = _preflight(request, endpoint)
            elif endpoint is not None:
                answer = await endpoint.answer(request)
            else:
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
        """The answer to a request that was refused with `error` before it was read."""
        endpoint = self._endpoint(request)
        if endpoint is not None:
            request.call.api = endpoint.api
        else:
            with suppress(ServingError):
                self._route(request)
        return self._failed(request, error)

    def refusal(self, request: Request, status: int, text: str) -> Answer:
        """The answer to a request that HTTP does not allow."""
        endpoint = self._endpoint(request)
        return endpoint.refusal(status, text) if endpoint else refusal(status, text)

    def _endpoint(self, request: Request) -> Endpoint | None:
        return next((each for each in self._endpoints if each.takes(request.path)), None)

    def _failed(self, request: Request, error: ServingError) -> Answer:
        self._api.count(request.call, error.code)
        endpoint = self._endpoint(request)
        return self._with_cors(endpoint.failure(error) if endpoint else failure(error))

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
        """Refuse a request before parsing, if it cannot be answered before its deadline."""
        if request.packed:
            return
        try:
            self._api.require_time(route.model_spec(), request.call)
        except ServingError:  # search the body only now, because that takes long
            if b'"signature_name"' not in request.body:  # it may name another signature
                raise

    def _predict_request(
        self, route: routes.Route, request: Request
    ) -> tuple[PredictRequest, bool]:
        """The message, and whether the answer should be in rows."""
        with self._document(request) as found:
            spec = route.model_spec(decode.signature_name(found))
            infos = self._infos(spec)
            rows = decode.is_row_form(found)
            message = PredictRequest(model_spec=spec)
            for name, array in decode.inputs(found, infos).items():
                content = array.dtype != object  # for strings, that would need another copy
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
        """The request's JSON document. Admission counts its memory during the block."""
        with unpacked(request, self._api.admission, self._max_body_bytes) as (body, hold):
            hold.resize(hold.size + document.footprint(body))
            yield document.parse(body)


def _preflight(request: Request, endpoint: Endpoint | None) -> Answer:
    """Answer a CORS preflight, which a browser sends before a request to another origin."""
    if endpoint is None and not request.path.lower().startswith("/v1/"):
        raise routes.malformed(request.method, request.path)
    if not re.search("https?://", request.origin):
        raise failed_precondition("Origin header is missing in CORS preflight")
    return Answer(status=200)
