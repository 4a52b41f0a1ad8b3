"""A fake TensorFlow Serving inside the test, with adjustable version, speed and faults."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from featurewire._tfs import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    meta_graph_pb2,
    predict_pb2,
    tensor_pb2,
    types_pb2,
)

JPEG_MAGIC = b"\xff\xd8\xff"
DIMENSION = 8


def vector_of(image: bytes, version: int = 1) -> np.ndarray:
    """The server's vector for an image: float32 [DIMENSION]."""
    digest = hashlib.sha256(image).digest()
    return np.frombuffer(digest, "<u4").astype(np.float32) / np.float32(2**32) + version


@dataclass
class Version:
    state: int = 30
    error_code: Any = 0
    error_message: str = ""
    vector_space: str | None = None


@dataclass
class FakeServing:
    """Serves `model`; `current` is the version for requests that do not name one."""

    model: str = "tiny"
    current: int = 1
    versions: dict[int, Version] = field(default_factory=lambda: {1: Version()})
    labels: dict[str, int] = field(default_factory=dict)
    seconds_per_image: float = 0.0
    seen: Counter = field(default_factory=Counter)
    """Number of answers per image, by its bytes."""
    predict_error: tuple[grpc.StatusCode, str] | None = None
    max_rows: int = 1 << 30
    knows_metadata: bool = True
    after_a_look: Callable[[], object] = lambda: None
    """Called after each answer to a status request."""
    port: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._server: grpc.Server | None = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def answered(self) -> int:
        with self._lock:
            return sum(self.seen.values())

    def start(self, credentials: grpc.ServerCredentials | None = None) -> FakeServing:
        server = grpc.server(
            futures.ThreadPoolExecutor(16),
            options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)],
        )
        server.add_generic_rpc_handlers(
            [
                _handlers(
                    "tensorflow.serving.PredictionService",
                    Predict=(self._predict, predict_pb2.PredictRequest),
                    GetModelMetadata=(
                        self._metadata,
                        get_model_metadata_pb2.GetModelMetadataRequest,
                    ),
                ),
                _handlers(
                    "tensorflow.serving.ModelService",
                    GetModelStatus=(self._status, get_model_status_pb2.GetModelStatusRequest),
                ),
            ]
        )
        address = f"127.0.0.1:{self.port}"
        self.port = (
            server.add_secure_port(address, credentials)
            if credentials
            else server.add_insecure_port(address)
        )
        server.start()
        self._server = server
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(0).wait(60)
            self._server = None

    def _resolve(self, spec, context) -> int:
        if spec.name != self.model:
            context.abort(
                grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({spec.name})"
            )
        if spec.version_label:
            if spec.version_label not in self.labels:
                context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"Unrecognized servable version label: {spec.version_label}",
                )
            return self.labels[spec.version_label]
        version = spec.version.value if spec.HasField("version") else self.current
        if version not in self.versions or self.versions[version].state != 30:
            context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"Servable not found for request: Specific({spec.name}, {version})",
            )
        return version

    def _predict(self, request, context):
        version = self._resolve(request.model_spec, context)
        reply = predict_pb2.PredictResponse()
        reply.model_spec.name = self.model
        reply.model_spec.version.value = version
        reply.model_spec.signature_name = request.model_spec.signature_name or "serving_default"
        if request.model_spec.signature_name == "manifest":
            space = self.versions[version].vector_space
            if space is None:
                context.abort(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    'Serving signature key "manifest" not found.',
                )
            asked = len(request.inputs["request"].string_val)
            text = json.dumps({"vector_space": space, "dimension": DIMENSION}).encode()
            _fill(reply.outputs["manifest"], types_pb2.DT_STRING, (asked,)).string_val.extend(
                [text] * asked
            )
            return reply
        if self.predict_error is not None:
            context.abort(*self.predict_error)
        images = list(request.inputs["image_bytes"].string_val)
        if len(images) > self.max_rows:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"Task size {len(images)} is larger than maximum input batch size {self.max_rows}",
            )
        if self.seconds_per_image:
            time.sleep(self.seconds_per_image * len(images))
        codes = [1 if not i else 0 if i.startswith(JPEG_MAGIC) else 2 for i in images]
        rows = [
            vector_of(image, version) if not code else np.full(DIMENSION, np.nan, np.float32)
            for image, code in zip(images, codes, strict=True)
        ]
        _fill(
            reply.outputs["features"], types_pb2.DT_FLOAT, (len(images), DIMENSION)
        ).float_val.extend(np.concatenate(rows).tolist())
        _fill(reply.outputs["status"], types_pb2.DT_INT32, (len(images),)).int_val.extend(codes)
        with self._lock:
            self.seen.update(images)
        return reply

    def _metadata(self, request, context):
        if not self.knows_metadata:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        version = self._resolve(request.model_spec, context)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        default = signatures.signature_def["serving_default"]
        default.method_name = "tensorflow/serving/predict"
        _info(default.inputs["image_bytes"], types_pb2.DT_STRING, -1)
        _info(default.outputs["features"], types_pb2.DT_FLOAT, -1, DIMENSION)
        _info(default.outputs["status"], types_pb2.DT_INT32, -1)
        if self.versions[version].vector_space is not None:
            manifest = signatures.signature_def["manifest"]
            manifest.method_name = "tensorflow/serving/predict"
            _info(manifest.inputs["request"], types_pb2.DT_STRING, -1)
            _info(manifest.outputs["manifest"], types_pb2.DT_STRING, -1)
        reply = get_model_metadata_pb2.GetModelMetadataResponse()
        reply.model_spec.name = self.model
        reply.model_spec.version.value = version
        reply.metadata["signature_def"].Pack(signatures)
        return reply

    def _status(self, request, context):
        if request.model_spec.name != self.model:
            context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"Could not find any versions of model {request.model_spec.name}",
            )
        reply = get_model_status_pb2.GetModelStatusResponse()
        asked = request.model_spec
        for number, version in sorted(self.versions.items(), reverse=True):
            if asked.HasField("version") and asked.version.value != number:
                continue
            entry = reply.model_version_status.add(version=number, state=version.state)
            entry.status.error_code = version.error_code
            entry.status.error_message = version.error_message
        if not reply.model_version_status:
            context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"Could not find version {asked.version.value} of model {asked.name}",
            )
        self.after_a_look()
        return reply


def _handlers(service: str, **methods) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(
        service,
        {
            name: grpc.unary_unary_rpc_method_handler(
                function,
                request_deserializer=request.FromString,
                response_serializer=lambda reply: reply.SerializeToString(),
            )
            for name, (function, request) in methods.items()
        },
    )


def _fill(tensor: tensor_pb2.TensorProto, dtype: types_pb2.DataType, shape: tuple[int, ...]):
    tensor.dtype = dtype
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def _info(info: meta_graph_pb2.TensorInfo, dtype: types_pb2.DataType, *shape: int) -> None:
    info.dtype = dtype
    for size in shape:
        info.tensor_shape.dim.add(size=size)
