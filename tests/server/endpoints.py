"""A server with the Open Inference Protocol and /v1/embeddings, and requests for both."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import struct
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from featurewire._tfs.predict_pb2 import PredictResponse
from featurewire_server._tfs import open_inference_pb2 as oip
from featurewire_server.messages import tensors
from tests.server.support import JPEG, PREDICTION, code_and_text, predict_request, spec, stub_for
from tests.support.models import expected_vector
from tests.support.process import ServerProcess, all_versions, free_port
from tests.support.waiting import wait_until

SERVICE = "/inference.GRPCInferenceService/"
HEADER = "Inference-Header-Content-Length"
INFER = "/v2/models/tiny/infer"
EMBEDDINGS = "/v1/embeddings"
LIMIT = 32 << 20


class Endpoints:
    """A server with both endpoints open."""

    def __init__(self, server: ServerProcess, rest_port: int, stub: Any) -> None:
        self.server = server
        self._port = rest_port
        self._stub = stub

    def call(self, name: str, request: Any, timeout: float = 60.0, metadata: Any = ()) -> Any:
        """One gRPC call of the protocol."""
        answers = {
            "ModelInfer": oip.ModelInferResponse,
            "ModelMetadata": oip.ModelMetadataResponse,
            "ModelReady": oip.ModelReadyResponse,
            "ServerLive": oip.ServerLiveResponse,
            "ServerMetadata": oip.ServerMetadataResponse,
            "ServerReady": oip.ServerReadyResponse,
        }
        call = self._stub.start(SERVICE + name, request, answers.get(name), timeout, metadata)
        return call.result()

    def predict(self, images: list[bytes]) -> dict[str, np.ndarray]:
        request = predict_request(spec("tiny"), image_bytes=images)
        response = self._stub.call(PREDICTION + "Predict", request, PredictResponse)
        return {name: tensors.decode(name, each) for name, each in response.outputs.items()}

    def http(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Status, body and headers of an answer, whether it is an error or not."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}", data, headers, method=method
        )
        try:
            answer = urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            return answer.status, answer.read(), answer.headers

    def announce(self, path: str, size: int) -> Any:
        """Status and JSON of the answer to a body of `size` bytes that never comes."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest("POST", path)
            connection.putheader("Content-Length", str(size))
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def json(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        status, text, _ = self.http(method, path, body, **headers)
        return status, json.loads(text)

    def embed(self, **members: Any) -> Any:
        return self.json("POST", EMBEDDINGS, {"model": "tiny", **members})

    def metrics(self) -> str:
        return self.http("GET", "/monitoring/prometheus/metrics")[1].decode()

    def check_alive(self) -> None:
        """Check that the process answers Predict and counts 0 bytes in flight."""
        np.testing.assert_array_equal(self.predict([JPEG])["features"], [expected_vector(JPEG)])
        # A reply may be read before its bytes are released.
        wait_until(lambda: "featurewire_server_inflight_bytes 0" in self.metrics())


@contextlib.contextmanager
def open_endpoints(tiny_model: Path, folder: Path) -> Iterator[Endpoints]:
    """Version 1 of a tiny model, labelled `stable`, and version 2."""
    label = "version_labels { key: 'stable' value: 1 }"
    config = all_versions(folder, "tiny", tiny_model, label)
    config.write_text(config.read_text().replace("all {}", "specific { versions: 1 }"))
    monitoring = folder / "monitoring.config"
    monitoring.write_text("prometheus_config { enable: true }")
    port = free_port()
    server = ServerProcess(
        f"--model_config_file={config}",
        "--allow_version_labels_for_unavailable_models",
        f"--rest_api_port={port}",
        f"--monitoring_config_file={monitoring}",
        f"--max_inflight_bytes={LIMIT}",
        "--engine=tensorflow",
        "--enable_oip",
        "--enable_openai_embeddings",
        log=folder / "server.log",
    ).start()
    try:
        with stub_for(server.target) as stub:
            yield Endpoints(server, port, stub)
    finally:
        server.stop()


def strings(*items: bytes) -> bytes:
    """BYTES in raw form."""
    return b"".join(struct.pack("<I", len(item)) + item for item in items)


def infer_request(*images: bytes, typed: bool = False, **members: Any) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name="tiny", **members)
    tensor = request.inputs.add(name="image_bytes", datatype="BYTES", shape=[len(images)])
    if typed:
        tensor.contents.bytes_contents.extend(images)
    else:
        request.raw_input_contents.append(strings(*images))
    return request


def json_request(*images: bytes, **members: Any) -> dict[str, Any]:
    data = [{"b64": base64.b64encode(image).decode()} for image in images]
    tensor = {"name": "image_bytes", "datatype": "BYTES", "shape": [len(images)], "data": data}
    return {"inputs": [tensor], **members}


def code_of(endpoints: Endpoints, request: Any) -> grpc.StatusCode:
    """The code of a ModelInfer call that fails."""
    return code_and_text(lambda: endpoints.call("ModelInfer", request))[0]


def data_uri(image: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(image).decode()
