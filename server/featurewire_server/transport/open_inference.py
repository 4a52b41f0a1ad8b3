"""The Open Inference Protocol v2: one coroutine per call, for gRPC and REST.

Inference uses the path of Predict requests: the same admission, schedule, deadlines and metrics.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata

import numpy as np

from featurewire._tfs.meta_graph_pb2 import TensorInfo
from featurewire._tfs.model_pb2 import ModelSpec
from featurewire_server._tfs import open_inference_pb2
from featurewire_server._tfs.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ServerLiveRequest,
    ServerLiveResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)
from featurewire_server.api import Answer, Api, Call
from featurewire_server.common.errors import (
    ServingError,
    from_exception,
    invalid_argument,
    unimplemented,
)
from featurewire_server.messages import open_inference
from featurewire_server.messages.open_inference import InferRequest

SERVICE = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
REFUSED = (
    "ModelStreamInfer",
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
    "TraceSetting",
    "LogSettings",
)
"""Calls of protocol extensions, which are answered UNIMPLEMENTED with a reason."""
REFUSED_PARAMETERS = {
    "sequence_id": "sequences are not supported: every request is complete",
    "shared_memory_region": "shared memory is not supported: send the tensor",
    "classification": "the classification extension is not supported: read the scores",
}
MAX_TENSORS = 1024
"""Maximum number of inputs, and of outputs, per request. We check them on the event loop."""
VERSION_DIGITS = 19
"""Number of digits of the largest version."""
STRING_BYTES = 64
"""Memory that a string takes in addition to its content."""


def refused(name: str) -> ServingError:
    """The error for a call of a protocol extension."""
    return unimplemented(
        f"{name} is not supported: models and versions are loaded from the file system, and "
        "inference is ModelInfer"
    )


def model_spec(name: str, version: str) -> ModelSpec:
    """A spec for `name` and `version`: a number, a label, or empty for the newest version.

    Raises INVALID_ARGUMENT for a number beyond 63 bits.
    """
    spec = ModelSpec(name=name)
    if version.isdecimal() and version.isascii() and len(version) <= VERSION_DIGITS:
        if int(version) >= 1 << 63:
            raise invalid_argument(f"The version {version} is too large")
        spec.version.value = int(version)
    elif version:
        spec.version_label = version
    return spec


class OpenInference:
    """The calls of the protocol, answered by an `Api`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def server_live(self, _: ServerLiveRequest, _call: Call) -> ServerLiveResponse:
        return ServerLiveResponse(live=True)

    async def server_ready(self, _: ServerReadyRequest, _call: Call) -> ServerReadyResponse:
        """The server is ready if every model of the config has an AVAILABLE version."""
        return ServerReadyResponse(ready=self._api.manager.ready)

    async def model_ready(self, request: ModelReadyRequest, _call: Call) -> ModelReadyResponse:
        """A version is ready if it can be called now. An unknown version is not ready."""
        try:
            with self._api.manager.use(model_spec(request.name, request.version)):
                return ModelReadyResponse(ready=True)
        except ServingError:
            return ModelReadyResponse(ready=False)

    async def server_metadata(
        self, _: ServerMetadataRequest, _call: Call
    ) -> ServerMetadataResponse:
        return ServerMetadataResponse(
            name="featurewire-server",
            version=metadata.version("featurewire-server"),
            extensions=["binary_tensor_data"],
        )

    async def model_metadata(
        self, request: ModelMetadataRequest, _call: Call
    ) -> ModelMetadataResponse:
        """The available versions, and the tensors of the default signature. Raises ServingError."""
        _, signature = self._api.signature(model_spec(request.name, request.version))
        return ModelMetadataResponse(
            name=request.name,
            versions=[str(version) for version in self._api.manager.available(request.name)],
            platform="tensorflow_savedmodel",
            inputs=_tensors(signature.inputs),
            outputs=_tensors(signature.outputs),
        )

    async def model_infer(self, request: InferRequest, call: Call) -> ModelInferResponse:
        encode = partial(open_inference.encode, request=request.message)
        return await self.infer(request, encode, call)

    async def infer(
        self,
        request: InferRequest,
        encode: Callable[[ModelSpec, Mapping[str, np.ndarray]], Answer],
        call: Call,
    ) -> Answer:
        """Run a request and return the result of `encode` for its outputs. Raises ServingError."""
        message = request.message
        call.model = message.model_name
        try:
            given = _parameters(message)
            spec = model_spec(message.model_name, message.model_version)
            signature = given.get("signature_name", "")
            if not isinstance(signature, str):
                raise invalid_argument("the parameter signature_name must be a string")
            timeout = given.get("timeout", 0)
            if isinstance(timeout, int) and timeout > 0:  # microseconds
                deadline = time.monotonic() + timeout / 1e6
                call.terms.deadline = min(call.terms.deadline or math.inf, deadline)
            strings = open_inference.string_count(message, call.held.size)
            call.held.resize(call.held.size + STRING_BYTES * strings)
        except Exception as error:
            raise from_exception(error) from error
        plan = partial(open_inference.plan, request=request, signature_name=signature)
        return await self._api.run(spec, plan, encode, call)


def _parameters(request: ModelInferRequest) -> dict[str, object]:
    """The parameters of a request, after checking those of its tensors as well.

    Raises INVALID_ARGUMENT for too many tensors, UNIMPLEMENTED for parameters of extensions.
    """
    for name, count in (("inputs", len(request.inputs)), ("outputs", len(request.outputs))):
        if count > MAX_TENSORS:
            raise invalid_argument(f"The request has {count} {name}; up to {MAX_TENSORS} are taken")
    given = open_inference.parameters(request)
    names = {name for tensor in request.inputs for name in tensor.parameters}
    names |= {name for output in request.outputs for name in output.parameters}
    for name in sorted(REFUSED_PARAMETERS.keys() & (names | given.keys())):
        raise unimplemented(f"parameter {name}: {REFUSED_PARAMETERS[name]}")
    return given


def _tensors(infos: Mapping[str, TensorInfo]) -> list[ModelMetadataResponse.TensorMetadata]:
    return [
        ModelMetadataResponse.TensorMetadata(
            name=name,
            datatype=open_inference.datatype_of(info.dtype),
            shape=open_inference.shape_of(info),
        )
        for name, info in sorted(infos.items())
    ]
