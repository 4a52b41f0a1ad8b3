"""The services' handlers over protobuf messages, whatever transport brought them.

gRPC and REST both call an `Api`. A handler returns the response message or
raises ServingError; it never returns half a response.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import grpc
from google.protobuf.message import Message

from featurewire._tfs.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
)
from featurewire._tfs.get_model_status_pb2 import GetModelStatusRequest, GetModelStatusResponse
from featurewire._tfs.meta_graph_pb2 import SignatureDef
from featurewire._tfs.model_management_pb2 import ReloadConfigRequest, ReloadConfigResponse
from featurewire._tfs.model_pb2 import ModelSpec
from featurewire._tfs.predict_pb2 import PredictRequest, PredictResponse

from . import inference, metadata, predict, tensors
from ._tfs.classification_pb2 import ClassificationRequest, ClassificationResponse
from ._tfs.inference_pb2 import MultiInferenceRequest, MultiInferenceResponse
from ._tfs.regression_pb2 import RegressionRequest, RegressionResponse
from .admission import Admission
from .cancellation import Cancellation
from .errors import ServingError, from_exception, invalid_argument
from .manager import Manager
from .servable import Servable
from .telemetry import Metrics, NullMetrics

log = logging.getLogger(__name__)


class Api:
    """Every RPC as a method.

    `deadline` is in seconds of `time.monotonic()`, None for none; `cancelled` is set by the
    transport when the caller has gone; `entrypoint` (`GRPC` or `REST`) is for the metrics.
    """

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
        self.metrics = metrics or NullMetrics()
        self._tensor_content = tensor_content
        self._check_method_names = check_method_names

    def predict(
        self,
        request: PredictRequest,
        *,
        deadline: float | None = None,
        cancelled: Cancellation | None = None,
        entrypoint: str = "GRPC",
    ) -> PredictResponse:
        with self._serving(request, "Predict", entrypoint) as servable, ExitStack() as held:
            name, values = self._timed(
                servable,
                "Predict",
                predict.run,
                request,
                deadline=deadline,
                cancelled=cancelled,
                check_method=self._check_method_names,
                # An answer can be larger than its request by any factor.
                reserve=lambda size: held.enter_context(self.admission.admit(size)),
            )
            response = PredictResponse(model_spec=_effective(servable, name))
            for alias, value in values.items():
                response.outputs[alias].CopyFrom(
                    tensors.encode(value, content=self._tensor_content)
                )
            return response

    def classify(
        self,
        request: ClassificationRequest,
        *,
        deadline: float | None = None,
        cancelled: Cancellation | None = None,
        entrypoint: str = "GRPC",
    ) -> ClassificationResponse:
        with self._serving(request, "Classify", entrypoint) as servable:
            name, result = self._timed(
                servable,
                "Classify",
                inference.classify,
                request,
                deadline=deadline,
                cancelled=cancelled,
                check_method=self._check_method_names,
            )
            return ClassificationResponse(model_spec=_effective(servable, name), result=result)

    def regress(
        self,
        request: RegressionRequest,
        *,
        deadline: float | None = None,
        cancelled: Cancellation | None = None,
        entrypoint: str = "GRPC",
    ) -> RegressionResponse:
        with self._serving(request, "Regress", entrypoint) as servable:
            name, result = self._timed(
                servable,
                "Regress",
                inference.regress,
                request,
                deadline=deadline,
                cancelled=cancelled,
                check_method=self._check_method_names,
            )
            return RegressionResponse(model_spec=_effective(servable, name), result=result)

    def multi_inference(
        self,
        request: MultiInferenceRequest,
        *,
        deadline: float | None = None,
        cancelled: Cancellation | None = None,
        entrypoint: str = "GRPC",
    ) -> MultiInferenceResponse:
        """All tasks run on the version that the first one names."""
        if not request.tasks:
            raise invalid_argument("Inference request must contain at least one task")
        first = request.tasks[0]
        with self._serving(first, "MultiInference", entrypoint) as servable:
            results = self._timed(
                servable,
                "MultiInference",
                inference.multi_inference,
                request,
                deadline=deadline,
                cancelled=cancelled,
                check_method=self._check_method_names,
            )[0]
            for result in results:
                result.model_spec.version.value = servable.version
            return MultiInferenceResponse(results=results)

    def get_model_metadata(
        self, request: GetModelMetadataRequest, *, entrypoint: str = "GRPC"
    ) -> GetModelMetadataResponse:
        with self._observed(request, "GetModelMetadata", entrypoint):
            _require_spec(request)
            metadata.check_fields(request.metadata_field)
            with self.manager.use(request.model_spec) as servable:
                response = GetModelMetadataResponse(model_spec=_effective(servable))
                for field in request.metadata_field:
                    metadata.fill(response.metadata[field], servable.runner.signatures)
            return response

    def get_model_status(
        self, request: GetModelStatusRequest, *, entrypoint: str = "GRPC"
    ) -> GetModelStatusResponse:
        with self._observed(request, "GetModelStatus", entrypoint):
            _require_spec(request)
            return GetModelStatusResponse(
                model_version_status=self.manager.statuses(request.model_spec)
            )

    def reload_config(
        self, request: ReloadConfigRequest, *, deadline: float | None = None
    ) -> ReloadConfigResponse:
        """Replace the whole model list; an OK response says that it has taken hold."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        try:
            self.manager.reload(request.config, deadline=deadline)
        except ServingError as error:
            log.error("HandleReloadConfigRequest failed: %s", error.message)
            raise
        response = ReloadConfigResponse()
        response.status.SetInParent()
        return response

    def signature(self, spec: ModelSpec) -> tuple[ModelSpec, SignatureDef]:
        """The effective spec (version and signature name) and the signature that `spec` names.

        For a transport that must know dtypes before it can build a request.
        """
        with self.manager.use(spec) as servable:
            name, signature = predict.signature_of(servable.runner.signatures, spec.signature_name)
            return _effective(servable, name), signature

    def count_refused(self, api: str, code: grpc.StatusCode) -> None:
        """A request that was refused before anybody read which model it is for."""
        self.metrics.observe_request(model="", api=api, entrypoint="GRPC", code=code, seconds=0.0)

    @contextmanager
    def _serving(self, request: Message, api: str, entrypoint: str) -> Iterator[Servable]:
        with self._observed(request, api, entrypoint):
            _require_spec(request)
            with self.manager.use(request.model_spec) as servable:
                yield servable

    def _timed(self, servable: Servable, api: str, run: Callable, request: Message, **options):
        """`run`'s results but for the last, the number of examples, which is reported."""
        started = time.monotonic()
        *results, examples = run(servable.runner, request, **options)
        self.metrics.observe_runtime(
            model=servable.name, api=api, seconds=time.monotonic() - started
        )
        self.metrics.observe_examples(model=servable.name, count=examples)
        return results

    @contextmanager
    def _observed(self, request: Message, api: str, entrypoint: str) -> Iterator[None]:
        started = time.monotonic()
        code = grpc.StatusCode.OK
        try:
            yield
        except Exception as failure:
            error = from_exception(failure)
            code = error.code
            if error is not failure and code is grpc.StatusCode.INTERNAL:
                log.exception("%s failed", api)
            raise error from failure
        finally:
            self.metrics.observe_request(
                model=request.model_spec.name,
                api=api,
                entrypoint=entrypoint,
                code=code,
                seconds=time.monotonic() - started,
            )


def _require_spec(request: Message) -> None:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")


def _effective(servable: Servable, signature_name: str = "") -> ModelSpec:
    spec = ModelSpec(name=servable.name, signature_name=signature_name)
    spec.version.value = servable.version
    return spec
