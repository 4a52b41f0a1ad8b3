"""A server in the test's process, a client in another one, and fake engines."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from featurewire._tfs.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
)
from featurewire._tfs.get_model_status_pb2 import GetModelStatusRequest, GetModelStatusResponse
from featurewire._tfs.meta_graph_pb2 import SignatureDef
from featurewire._tfs.model_management_pb2 import ReloadConfigRequest, ReloadConfigResponse
from featurewire._tfs.model_pb2 import ModelSpec
from featurewire._tfs.model_server_config_pb2 import ModelServerConfig
from featurewire._tfs.predict_pb2 import PredictRequest, PredictResponse
from featurewire_server.api import Api
from featurewire_server.batching.config import BatchingConfig
from featurewire_server.batching.runner import BatchScheduler, Runner
from featurewire_server.common.admission import Admission
from featurewire_server.common.loop import event_loop
from featurewire_server.engines.engine import Engine, EngineConfig
from featurewire_server.messages import tensors
from featurewire_server.models.loading import Loader
from featurewire_server.models.manager import Manager, ManagerConfig
from featurewire_server.transport.grpc_server import GrpcConfig, GrpcServer
from tests.server.caller import Call, Channel, caller
from tests.support.process import free_port
from tests.support.waiting import wait_until

PREDICTION = "/tensorflow.serving.PredictionService/"
MODEL = "/tensorflow.serving.ModelService/"
JPEG = b"\xff\xd8\xff\x00\x01"
TIMEOUT = 60.0  # seconds


def config(*models: str) -> ModelServerConfig:
    """A `model_config_list` with a `config` for each text in `models`."""
    from google.protobuf import text_format

    inner = " ".join(f'config {{ model_platform: "tensorflow" {model} }}' for model in models)
    return text_format.Parse(f"model_config_list {{ {inner} }}", ModelServerConfig())


def model(name: str, base_path: Path, more: str = "") -> str:
    return f'name: "{name}" base_path: "{base_path}" {more}'


def spec(name: str = "tiny", version: int | None = None, label: str = "", signature: str = ""):
    made = ModelSpec(name=name, signature_name=signature)
    if version is not None:
        made.version.value = version
    if label:
        made.version_label = label
    return made


def predict_request(model_spec: ModelSpec | None = None, **inputs: Any) -> PredictRequest:
    """Inputs are arrays, or lists of bytes for a string tensor."""
    request = PredictRequest(model_spec=model_spec or spec())
    for name, value in inputs.items():
        if isinstance(value, list):
            array = np.empty(len(value), dtype=object)
            array[:] = value
            value = array
        request.inputs[name].CopyFrom(tensors.encode(value))
    return request


class Started:
    """A running call, and the type of its answer; None means bytes."""

    def __init__(self, call: Call, response) -> None:
        self._call = call
        self._response = response

    def result(self):
        data = self._call.result()
        return self._response.FromString(data) if self._response else data

    def __getattr__(self, name: str):
        return getattr(self._call, name)


class Stub:
    """Every RPC as a method, over one channel of the caller's process."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.open = channel.open
        self.port: int
        self.server: GrpcServer
        self.manager: Manager
        self.api: Api

    def call(self, path: str, request, response, timeout: float | None = TIMEOUT):
        return self.start(path, request, response, timeout).result()

    def start(
        self, path: str, request, response=None, timeout: float | None = TIMEOUT, metadata=()
    ) -> Started:
        """The call as a future; `request` may be raw bytes."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        return Started(self._channel.start(path, data, timeout, metadata), response)

    def predict(self, request: PredictRequest, timeout: float | None = TIMEOUT) -> PredictResponse:
        return self.call(PREDICTION + "Predict", request, PredictResponse, timeout)

    def embed(self, model_spec: ModelSpec | None = None, images=(JPEG,)) -> np.ndarray:
        """`features` of the tiny model for `images`."""
        response = self.predict(predict_request(model_spec, image_bytes=list(images)))
        return tensors.decode("features", response.outputs["features"])

    def metadata(self, model_spec: ModelSpec, *fields: str) -> GetModelMetadataResponse:
        request = GetModelMetadataRequest(model_spec=model_spec, metadata_field=fields)
        return self.call(PREDICTION + "GetModelMetadata", request, GetModelMetadataResponse)

    def status(self, model_spec: ModelSpec | None = None) -> GetModelStatusResponse:
        request = GetModelStatusRequest(model_spec=model_spec or spec())
        return self.call(MODEL + "GetModelStatus", request, GetModelStatusResponse)

    def states(self, name: str = "tiny") -> dict[int, str]:
        """The name of each version's state."""
        from featurewire_server.models.servable import State

        found = self.status(spec(name)).model_version_status
        return {status.version: State(status.state).name for status in found}

    def reload(self, new: ModelServerConfig) -> ReloadConfigResponse:
        request = ReloadConfigRequest(config=new)
        return self.call(MODEL + "HandleReloadConfigRequest", request, ReloadConfigResponse)


@contextlib.contextmanager
def stub_for(target: str, tls: dict[str, bytes] | None = None) -> Iterator[Stub]:
    with contextlib.closing(caller().Channel(target, tls)) as channel:
        yield Stub(channel)


@contextlib.contextmanager
def served(
    first: ModelServerConfig,
    *,
    batching: BatchingConfig | None = None,
    per_model_batching: bool = False,
    load=None,
    manager: ManagerConfig | None = None,
    limit: int = 64 << 20,
    tensor_content: bool = False,
    grpc_config: dict | None = None,
    engine: EngineConfig | None = None,
    check_method_names: bool = False,
) -> Iterator[Stub]:
    """A server in this process with the config `first`, and a client in another process. `load`
    replaces the real loader."""
    scheduler = BatchScheduler(batching.threads, unbatched=1) if batching else unbatched()
    made = Manager(
        load
        or Loader(
            engine=engine or EngineConfig(engine="tensorflow"),
            batching=batching,
            per_model_batching=per_model_batching,
            scheduler=scheduler,
        ),
        manager or ManagerConfig(poll_seconds=0.1, max_load_retries=0),
    )
    api = Api(
        made,
        admission=Admission(limit),
        tensor_content=tensor_content,
        check_method_names=check_method_names,
    )
    options = {"port": free_port(), "host": "127.0.0.1", "max_threads": 32} | (grpc_config or {})
    with leaves_nothing() as counts:
        made.reload(first)
        made.start()
        server = GrpcServer(api, GrpcConfig(**options))
        counts.append(lambda: api.admission.held)
        counts.append(lambda: server.open_calls)
        try:
            with stub_for(f"127.0.0.1:{server.port}") as stub:
                stub.port = server.port
                stub.server = server
                stub.manager = made
                stub.api = api
                yield stub
        finally:
            server.stop(5)
            made.stop()


@functools.cache
def unbatched() -> BatchScheduler:
    """Runs requests without batching, many at once."""
    return BatchScheduler(0, unbatched=16)


def direct(engine: Engine) -> Runner:
    """A runner without batching."""
    return Runner("m", engine, None, unbatched())


STAYING = re.compile(r"event-loop|(compute|decode|worker)_\d+|batch-\d+|poll|.*\(_poll_wrapper\)")
"""Names of threads that belong to servers, not to calls."""
CALLS = re.compile(r"rpc_task|.*HandleExceptions.*|Application.*|.*run_asgi.*")
"""Tasks of calls, by their own name or their coroutine's."""


@contextlib.contextmanager
def leaves_nothing() -> Iterator[list[Callable[[], int]]]:
    """Check for leaks after a block in which a server runs and stops: all counts of the functions
    on the yielded list are zero, no task of a call is left, and no thread was added."""
    before = {*threading.enumerate()}
    counts: list[Callable[[], int]] = []
    yield counts

    def left() -> list[str]:
        tasks = asyncio.all_tasks(event_loop())
        names = [
            name
            for task in tasks
            for name in (task.get_name(), getattr(task.get_coro(), "__qualname__", ""))
        ]
        threads = [thread.name for thread in {*threading.enumerate()} - before]
        return [
            *filter(CALLS.fullmatch, names),
            *(name for name in threads if not STAYING.fullmatch(name)),
            *(f"{count()} counted" for count in counts if count()),
        ]

    with contextlib.suppress(AssertionError):
        wait_until(lambda: not left())
    assert left() == [], left()


class FakeEngine:
    """An engine that doubles `x`. A test can hold it, make it fail and see its inputs."""

    name = "fake"
    precision = "float32"
    pads = True
    side_by_side = True

    def __init__(self, signatures=("serving_default",)) -> None:
        from featurewire._tfs import types_pb2

        signature = SignatureDef()
        for info in (signature.inputs["x"], signature.outputs["y"]):
            info.name = "x:0"
            info.dtype = types_pb2.DT_FLOAT
            info.tensor_shape.unknown_rank = True
        self.signatures: Mapping[str, SignatureDef] = dict.fromkeys(signatures, signature)
        self.gate = threading.Event()
        self.gate.set()
        self.calls: list[tuple[str, np.ndarray]] = []
        self.running = 0
        self.most_running = 0
        self.closed = False
        self.failure: Exception | None = None
        self._lock = threading.Lock()

    def run(self, signature_name, inputs, outputs, patience=None):
        assert not self.closed, "a closed engine was run"
        with self._lock:
            self.calls.append((signature_name, inputs["x"]))
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        try:
            assert self.gate.wait(TIMEOUT), "the gate stayed closed"
            if self.failure is not None:
                raise self.failure
            return {"y": inputs["x"] * 2}
        finally:
            with self._lock:
                self.running -= 1

    def close(self) -> None:
        assert self.running == 0, "closed while it ran"
        self.closed = True


def code_and_text(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """The error of an RPC that must fail."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError("the call succeeded")
