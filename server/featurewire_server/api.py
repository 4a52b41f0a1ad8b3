"""Handlers for every RPC, over protobuf messages and independent of the transport.

gRPC and REST both call an `Api`. A handler returns the complete response message or raises
ServingError.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import grpc
import numpy as np

from featurewire._tfs.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    SignatureDefMap,
)
from featurewire._tfs.get_model_status_pb2 import GetModelStatusRequest, GetModelStatusResponse
from featurewire._tfs.meta_graph_pb2 import SignatureDef
from featurewire._tfs.model_management_pb2 import ReloadConfigRequest, ReloadConfigResponse
from featurewire._tfs.model_pb2 import ModelSpec
from featurewire._tfs.predict_pb2 import PredictRequest, PredictResponse
from featurewire_server._tfs.classification_pb2 import ClassificationRequest, ClassificationResponse
from featurewire_server._tfs.inference_pb2 import (
    InferenceTask,
    MultiInferenceRequest,
    MultiInferenceResponse,
)
from featurewire_server._tfs.regression_pb2 import RegressionRequest, RegressionResponse
from featurewire_server.batching.task import Terms
from featurewire_server.common.admission import Admission, Hold
from featurewire_server.common.errors import ServingError, from_exception, invalid_argument
from featurewire_server.common.loop import NUMBERS, by_size
from featurewire_server.common.metrics import Metrics
from featurewire_server.messages import inference, predict, tensors
from featurewire_server.messages.predict import Run
from featurewire_server.models.manager import Manager
from featurewire_server.models.servable import Servable

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

SIGNATURE_DEF = "signature_def"
CLASS, BULK = "featurewire-class", "bulk"
"""Metadata key and value (over REST: header) that mark a call as bulk, not interactive."""


REMEMBERED_CONNECTIONS = 1024
REMEMBERED_SECONDS = 2.0
READ_CALLS = 8
"""One call in this many is read even if `refuse_early` would refuse it."""


@dataclass(kw_only=True)
class Call:
    """The properties of a call that are not in its message."""

    terms: Terms = field(default_factory=Terms)
    held: Hold
    """Bytes that admission counts for the call, until its answer has been sent."""
    entrypoint: str = "GRPC"
    """`GRPC` or `REST`, for the metrics."""
    api: str = ""
    """`Predict` and so on, for the metrics."""
    model: str = ""
    """The model that the message names; empty until the message has been read."""
    started: float = math.inf
    """When the Api began to handle the call, in seconds of `time.monotonic()`."""
    answer_bytes: int = 0
    """Estimated size of the answer in bytes."""

    def reserve(self, size: int) -> None:
        """Also hold `size` bytes for the answer. Raises RESOURCE_EXHAUSTED."""
        self.answer_bytes = size
        self.held.resize(self.held.size + size)

    def cancellation_code(self) -> grpc.StatusCode:
        """DEADLINE_EXCEEDED if the deadline has passed, else CANCELLED (by the caller)."""
        return grpc.StatusCode.DEADLINE_EXCEEDED if self.late() else grpc.StatusCode.CANCELLED

    def late(self) -> bool:
        deadline = self.terms.deadline
        return deadline is not None and deadline <= time.monotonic()


@dataclass
class LastCall:
    """The last Predict call of a connection: model, signature, outputs and time."""

    spec: ModelSpec
    signature_name: str
    outputs: Sequence[str]
    at: float
    followers: int = 0
    """Number of calls on the connection since then."""


class Api:
    """One coroutine per RPC."""

    def __init__(
        self,
        manager: Manager,
        *,
        admission: Admission,
        metrics: Metrics | None = None,
        tensor_content: bool = False,
        check_method_names: bool = False,
    ) -> None:
        self.manager = manager
        self.admission = admission
        """Transports admit a request's bytes here before they parse it."""
        self.metrics = metrics or Metrics()
        self._tensor_content = tensor_content
        self._check = check_method_names
        self._last_calls: OrderedDict[object, LastCall] = OrderedDict()
        """The keys are connections, least recently used first."""

    async def predict(self, request: PredictRequest, call: Call) -> PredictResponse:
        plan = partial(predict.plan, request=request)
        return await self.run(_spec_of(request), plan, self._response, call)

    async def run(
        self,
        spec: ModelSpec | None,
        plan: Callable[..., Run],
        encode: Callable[[ModelSpec, Mapping[str, np.ndarray]], Answer],
        call: Call,
    ) -> Answer:
        """Run a signature of the version that `spec` names, and return the result of `encode`.

        `plan(signatures, check_method=…)` checks the request and returns its Run. `encode` gets the
        effective spec and the outputs. Raises ServingError, also if one of the two functions fails.
        """
        with self._named(spec, call) as named, self.manager.use(named) as servable:
            signatures = servable.runner.signatures
            run = await by_size(call.held.size, plan, signatures, check_method=self._check)
            self._remember(named, run, call)
            call.reserve(run.answer_bytes)  # an answer can be many times larger than its request
            [values] = await self._run(servable, [run], call)
            effective = _effective(servable, run.signature_name)
            return await by_size(NUMBERS * run.answer_bytes, encode, effective, values)

    def _remember(self, spec: ModelSpec, run: Run, call: Call) -> None:
        calls = self._last_calls
        calls[call.terms.caller] = LastCall(spec, run.signature_name, run.outputs, time.monotonic())
        calls.move_to_end(call.terms.caller)
        if len(calls) > REMEMBERED_CONNECTIONS:
            calls.popitem(last=False)

    def refuse_early(self, call: Call) -> None:
        """Raise RESOURCE_EXHAUSTED if a Predict call cannot meet its deadline, before reading it.

        The model and signature are in the message, which is still unread. So we assume that the
        call asks for the same as the last call of its connection, if that was less than
        `REMEMBERED_SECONDS` ago. One call in `READ_CALLS` is received anyway, so that the server
        notices when a connection asks for something else.
        """
        last = self._last_calls.get(call.terms.caller)
        if last is None or time.monotonic() - last.at > REMEMBERED_SECONDS:
            return
        last.followers += 1
        if last.followers % READ_CALLS == 0:
            return
        try:
            with self.manager.use(last.spec) as servable:
                servable.runner.require_time(last.signature_name, last.outputs, call.terms)
        except ServingError as error:
            if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
                call.model, call.started = last.spec.name, time.monotonic()
                raise

    def _response(self, spec: ModelSpec, values: Mapping[str, np.ndarray]) -> PredictResponse:
        response = PredictResponse(model_spec=spec)
        for alias, value in values.items():
            response.outputs[alias].CopyFrom(tensors.encode(value, content=self._tensor_content))
        return response

    async def classify(self, request: ClassificationRequest, call: Call) -> ClassificationResponse:
        spec, result = await self._infer(inference.CLASSIFY, request, call)
        return ClassificationResponse(model_spec=spec, result=result)

    async def regress(self, request: RegressionRequest, call: Call) -> RegressionResponse:
        spec, result = await self._infer(inference.REGRESS, request, call)
        return RegressionResponse(model_spec=spec, result=result)

    async def _infer(
        self, method: inference.Method, request: Any, call: Call
    ) -> tuple[ModelSpec, Any]:
        with self._serving(_spec_of(request), call) as servable:
            signatures = servable.runner.signatures
            run = inference.plan(signatures, method, request, check_method=self._check)
            [values] = await self._run(servable, [run], call)
            return _effective(servable, run.signature_name), method.result(values, run.examples)

    async def multi_inference(
        self, request: MultiInferenceRequest, call: Call
    ) -> MultiInferenceResponse:
        """Run all tasks on the version that the first task names."""
        first = InferenceTask()
        first.model_spec.SetInParent()  # a request without tasks gets a ModelSpec without a name
        for task in request.tasks[:1]:
            first.model_spec.CopyFrom(task.model_spec)
        with self._serving(_spec_of(first), call) as servable:
            signatures = servable.runner.signatures
            runs = inference.plan_multi_inference(signatures, request, check_method=self._check)
            values = await self._run(servable, runs, call)
            return MultiInferenceResponse(
                results=[
                    inference.result_of(task, run, found, servable.version)
                    for task, run, found in zip(request.tasks, runs, values, strict=True)
                ]
            )

    async def get_model_metadata(
        self, request: GetModelMetadataRequest, call: Call
    ) -> GetModelMetadataResponse:
        with self._named(_spec_of(request), call):
            if not request.metadata_field:
                raise invalid_argument(
                    "GetModelMetadataRequest must specify at least one metadata_field"
                )
            for field in request.metadata_field:
                if field != SIGNATURE_DEF:
                    raise invalid_argument(f"Metadata field {field} is not supported")
            found = SignatureDefMap()
            with self.manager.use(request.model_spec) as servable:
                response = GetModelMetadataResponse(model_spec=_effective(servable))
                for name, signature in servable.runner.signatures.items():
                    found.signature_def[name].CopyFrom(signature)
            # `Any.Pack` does not work for messages of the private descriptor pool.
            packed = response.metadata[SIGNATURE_DEF]
            packed.type_url = f"type.googleapis.com/{found.DESCRIPTOR.full_name}"
            packed.value = found.SerializeToString(deterministic=True)
            return response

    async def get_model_status(
        self, request: GetModelStatusRequest, call: Call
    ) -> GetModelStatusResponse:
        with self._named(_spec_of(request), call):
            return GetModelStatusResponse(
                model_version_status=self.manager.statuses(request.model_spec)
            )

    async def reload_config(self, request: ReloadConfigRequest, call: Call) -> ReloadConfigResponse:
        """Replace the whole model list.

        An OK response means that the new list is in force. The response says by how much each
        counter that the request names has grown.
        """
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        before = self.metrics.counts(request.metric_names)
        reload = partial(self.manager.reload, request.config, deadline=call.terms.deadline)
        work = asyncio.create_task(asyncio.to_thread(reload))
        try:
            await asyncio.shield(work)
        except ServingError as error:
            log.error("HandleReloadConfigRequest failed: %s", error.message)
            raise
        finally:  # a call whose caller has left keeps its place until its thread is free
            await asyncio.wait({work})
        response = ReloadConfigResponse()
        response.status.SetInParent()
        for name, count in self.metrics.counts(request.metric_names).items():
            # Unloading a version removes its series, so a count can fall.
            response.metric.add(name=name, int64_value_increase=max(count - before[name], 0))
        return response

    def signature(self, spec: ModelSpec) -> tuple[ModelSpec, SignatureDef]:
        """The effective spec (version and signature name) and the signature that `spec` names.

        REST calls this, because it must know the dtypes before it can build a request.
        """
        with self.manager.use(spec) as servable:
            name, signature = predict.signature_of(servable.runner.signatures, spec.signature_name)
            return _effective(servable, name), signature

    def require_time(self, spec: ModelSpec, call: Call) -> None:
        """Raise RESOURCE_EXHAUSTED if not even one row could be answered in time.

        REST calls this before it parses a body, because parsing JSON is expensive. Other errors
        are not raised here: reading the request finds them.
        """
        try:
            with self.manager.use(spec) as servable:
                name, signature = predict.signature_of(
                    servable.runner.signatures, spec.signature_name
                )
                servable.runner.require_time(name, [*signature.outputs], call.terms)
        except ServingError as error:
            if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise

    def count(self, call: Call, code: grpc.StatusCode) -> None:
        """Count a call that has ended. Transports do this once per call, whatever the outcome."""
        self.metrics.observe_request(
            model=call.model,
            api=call.api,
            entrypoint=call.entrypoint,
            code=code,
            seconds=max(time.monotonic() - call.started, 0.0),
        )

    async def _run(
        self, servable: Servable, runs: list[Run], call: Call
    ) -> list[dict[str, np.ndarray]]:
        """The outputs of each of `runs`, which share their examples."""
        started = time.monotonic()
        values = [await servable.runner.run(run, call.terms) for run in runs]
        self.metrics.observe_runtime(
            model=servable.name, api=call.api, seconds=time.monotonic() - started
        )
        self.metrics.observe_examples(model=servable.name, count=runs[0].examples)
        return values

    @contextmanager
    def _serving(self, spec: ModelSpec | None, call: Call) -> Iterator[Servable]:
        with self._named(spec, call) as named, self.manager.use(named) as servable:
            yield servable

    @contextmanager
    def _named(self, spec: ModelSpec | None, call: Call) -> Iterator[ModelSpec]:
        """Record the model and the start time, and turn every error into a ServingError."""
        call.model, call.started = spec.name if spec else "", time.monotonic()
        try:
            if spec is None:
                raise invalid_argument("Missing ModelSpec")
            yield spec
        except Exception as failure:
            error = from_exception(failure)
            if error is not failure and error.code is grpc.StatusCode.INTERNAL:
                log.exception("%s failed", call.api)
            raise error from failure


def _spec_of(request: Any) -> ModelSpec | None:
    """The ModelSpec of a request, or None."""
    return request.model_spec if request.HasField("model_spec") else None


def _effective(servable: Servable, signature_name: str = "") -> ModelSpec:
    spec = ModelSpec(name=servable.name, signature_name=signature_name)
    spec.version.value = servable.version
    return spec
