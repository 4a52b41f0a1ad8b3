"""The services' handlers over protobuf messages, whatever transport brought them.

gRPC and REST both call an `Api`. A handler returns the response message or
raises ServingError; it never returns half a response.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
"""The metadata, or header, of a call for which nobody waits."""


REMEMBERED_CONNECTIONS = 1024
REMEMBERED_SECONDS = 2.0
READ_CALLS = 8
"""Of this many calls that would be refused unread, one is read."""


@dataclass(kw_only=True)
class Call(Terms):
    """What a handler knows of a call besides its message."""

    held: Hold
    """What admission counts for it, until its answer has been sent."""
    entrypoint: str = "GRPC"
    """`GRPC` or `REST`, for the metrics."""
    api: str = ""
    """`Predict` and so on, for the metrics."""
    model: str = ""
    """What its message asks for; empty until it has been read."""
    started: float = math.inf
    """When the Api began with it, in seconds of `time.monotonic()`."""
    answer_bytes: int = 0
    """About how many the answer will take."""

    def reserve(self, size: int) -> None:
        """Hold as much for the answer, too; raises RESOURCE_EXHAUSTED."""
        self.answer_bytes = size
        self.held.resize(self.held.size + size)

    def cancellation_code(self) -> grpc.StatusCode:
        """Why it was cancelled: by its caller, or by its deadline."""
        return grpc.StatusCode.DEADLINE_EXCEEDED if self.late() else grpc.StatusCode.CANCELLED

    def late(self) -> bool:
        return self.deadline is not None and self.deadline <= time.monotonic()


@dataclass
class LastCall:
    """What the last Predict call of a connection asked for, and when."""

    spec: ModelSpec
    signature_name: str
    outputs: Sequence[str]
    at: float
    followers: int = 0
    """Calls of the connection since then."""


class Api:
    """Every RPC as a coroutine."""

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
        """By connection; the one that called last is the last key."""

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
        """Run a signature of the version that `spec` names, and return what `encode` makes of it.

        `plan(signatures, check_method=…)` checks the request and returns its Run. `encode` gets the
        effective spec and the outputs. Raises ServingError, also for what the two raise.
        """
        with self._named(spec, call) as named, self.manager.use(named) as servable:
            signatures = servable.runner.signatures
            run = await by_size(call.held.size, plan, signatures, check_method=self._check)
            self._remember(named, run, call)
            call.reserve(run.answer_bytes)  # it can be larger than the request by any factor
            [values] = await self._run(servable, [run], call)
            effective = _effective(servable, run.signature_name)
            return await by_size(NUMBERS * run.answer_bytes, encode, effective, values)

    def _remember(self, spec: ModelSpec, run: Run, call: Call) -> None:
        calls = self._last_calls
        calls[call.caller] = LastCall(spec, run.signature_name, run.outputs, time.monotonic())
        calls.move_to_end(call.caller)
        if len(calls) > REMEMBERED_CONNECTIONS:
            calls.popitem(last=False)

    def refuse_early(self, call: Call) -> None:
        """Raise RESOURCE_EXHAUSTED if a Predict call would come too late, before it is received.

        What a call asks for is in its message. So it is taken to ask for the same as the last call
        of its connection, if that was a moment ago. One in `READ_CALLS` is received anyway, so that
        the server learns when a connection asks for something else.
        """
        last = self._last_calls.get(call.caller)
        if last is None or time.monotonic() - last.at > REMEMBERED_SECONDS:
            return
        last.followers += 1
        if last.followers % READ_CALLS == 0:
            return
        try:
            with self.manager.use(last.spec) as servable:
                servable.runner.require_time(last.signature_name, last.outputs, call)
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
        """All tasks run on the version that the first one names."""
        first = InferenceTask()
        first.model_spec.SetInParent()  # without tasks it is a ModelSpec without a name
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
            # `Any.Pack` is not made for messages of the private pool.
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
        """Replace the whole model list; an OK response says that it has taken hold, and by how
        much each of the counters grew that the request names."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        before = self.metrics.counts(request.metric_names)
        reload = partial(self.manager.reload, request.config, deadline=call.deadline)
        work = asyncio.create_task(asyncio.to_thread(reload))
        try:
            await asyncio.shield(work)
        except ServingError as error:
            log.error("HandleReloadConfigRequest failed: %s", error.message)
            raise
        finally:  # a caller who has gone leaves its place only when its thread is free
            await asyncio.wait({work})
        response = ReloadConfigResponse()
        response.status.SetInParent()
        for name, count in self.metrics.counts(request.metric_names).items():
            # Series of a version that was unloaded are gone.
            response.metric.add(name=name, int64_value_increase=max(count - before[name], 0))
        return response

    def signature(self, spec: ModelSpec) -> tuple[ModelSpec, SignatureDef]:
        """The effective spec (version and signature name) and the signature that `spec` names.

        For a transport that must know dtypes before it can build a request.
        """
        with self.manager.use(spec) as servable:
            name, signature = predict.signature_of(servable.runner.signatures, spec.signature_name)
            return _effective(servable, name), signature

    def require_time(self, spec: ModelSpec, call: Call) -> None:
        """Raise RESOURCE_EXHAUSTED if not even one row could be answered in time.

        For a transport whose requests are dear to read. Other errors are found when it is read.
        """
        try:
            with self.manager.use(spec) as servable:
                name, signature = predict.signature_of(
                    servable.runner.signatures, spec.signature_name
                )
                servable.runner.require_time(name, [*signature.outputs], call)
        except ServingError as error:
            if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise

    def count(self, call: Call, code: grpc.StatusCode) -> None:
        """A call has ended: transports say so once of each, whatever became of it."""
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
        values = [await servable.runner.run(run, call) for run in runs]
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
        """Note what a call asks for, and when; every error in the block becomes a ServingError."""
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
    """The ModelSpec of a request; None if the request has none."""
    return request.model_spec if request.HasField("model_spec") else None


def _effective(servable: Servable, signature_name: str = "") -> ModelSpec:
    spec = ModelSpec(name=servable.name, signature_name=signature_name)
    spec.version.value = servable.version
    return spec
