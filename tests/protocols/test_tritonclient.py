"""tritonclient, unchanged: gRPC and HTTP, synchronous and asyncio."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import numpy as np
import pytest

triton_grpc = pytest.importorskip("tritonclient.grpc")
triton_http = pytest.importorskip("tritonclient.http")
import tritonclient.grpc.aio  # noqa: E402
import tritonclient.http.aio  # noqa: E402
from tritonclient.utils import InferenceServerException  # noqa: E402

KINDS = {
    "grpc": (triton_grpc, triton_grpc.InferenceServerClient),
    "grpc-aio": (triton_grpc, tritonclient.grpc.aio.InferenceServerClient),
    "http": (triton_http, triton_http.InferenceServerClient),
    "http-aio": (triton_http, tritonclient.http.aio.InferenceServerClient),
}


class Client:
    """One of the four clients; its coroutines are awaited here."""

    def __init__(self, kind: str, server: Any) -> None:
        self.kind = kind
        self.module, client = KINDS[kind]
        self._loop = asyncio.new_event_loop()
        self._client = self._run(self._make(client, server))

    async def _make(self, client: Any, server: Any) -> Any:
        return client(url=server.grpc if self.kind.startswith("grpc") else server.rest)

    def _run(self, found: Any) -> Any:
        return self._loop.run_until_complete(found) if inspect.isawaitable(found) else found

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: self._run(getattr(self._client, name)(*args, **options))

    def stop(self) -> None:
        self._run(self._client.close())
        self._loop.close()

    def tensor(self, images: list[bytes], shape: list[int] | None = None) -> Any:
        array = np.array(images, dtype=object)
        made = self.module.InferInput("image_bytes", shape or array.shape, "BYTES")
        made.set_data_from_numpy(array)
        return made


@pytest.fixture(params=KINDS)
def client(request, server):
    made = Client(request.param, server)
    yield made
    made.stop()


def test_the_server_and_its_model_are_ready(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("small")
    assert client.is_model_ready("small", "1")
    assert not client.is_model_ready("small", "2")
    assert not client.is_model_ready("other")


def test_metadata_names_the_tensors(client):
    options = {"as_json": True} if client.kind.startswith("grpc") else {}
    assert client.get_server_metadata(**options)["name"] == "featurewire-server"
    found = client.get_model_metadata("small", **options)
    assert [each["name"] for each in found["inputs"]] == ["image_bytes"]
    assert [each["datatype"] for each in found["outputs"]] == ["FP32", "INT32"]


def test_vectors_are_those_of_predict(client, images, wanted):
    answer = client.infer("small", [client.tensor(images)], request_id="7")
    assert answer.as_numpy("features").tobytes() == wanted
    assert answer.as_numpy("status").tolist() == [0, 0]


def test_outputs_come_as_asked_for(client, images, wanted):
    output = client.module.InferRequestedOutput("features")
    answer = client.infer("small", [client.tensor(images)], outputs=[output])
    assert answer.as_numpy("features").tobytes() == wanted
    assert answer.as_numpy("status") is None


def test_a_bad_image_costs_only_itself(client, images):
    answer = client.infer("small", [client.tensor([images[0], b"text", images[1]])])
    assert answer.as_numpy("status").tolist() == [0, 2, 0]
    assert answer.as_numpy("features")[[0, 2]].shape == (2, 192)
    assert np.isnan(answer.as_numpy("features")[1]).all()


def test_odd_images_have_the_status_of_predict(client, server, odd_images):
    vectors, status = server.predict(odd_images)
    assert status == [0, 3, 4, 2, 1]
    answer = client.infer("small", [client.tensor(odd_images)])
    assert answer.as_numpy("status").tolist() == status
    assert answer.as_numpy("features")[0].tobytes() == vectors[0].tobytes()


def test_errors_are_the_clients_own(client, images):
    with pytest.raises(InferenceServerException, match="Servable not found"):
        client.infer("other", [client.tensor(images)])
    with pytest.raises(InferenceServerException, match="is not supported"):
        client.get_model_repository_index()
    with pytest.raises(InferenceServerException, match="is not supported"):
        client.load_model("small")
    with pytest.raises(InferenceServerException, match="sequence"):
        client.infer("small", [client.tensor(images)], sequence_id=1)


@pytest.mark.parametrize("binary", [True, False])
def test_http_takes_outputs_as_json_or_binary(server, images, wanted, binary):
    client = Client("http", server)
    output = triton_http.InferRequestedOutput("features", binary_data=binary)
    answer = client.infer("small", [client.tensor(images)], outputs=[output])
    assert answer.as_numpy("features").tobytes() == wanted
    client.stop()


def test_http_bodies_may_be_packed(server, images, wanted):
    client = Client("http", server)
    answer = client.infer("small", [client.tensor(images)], request_compression_algorithm="gzip")
    assert answer.as_numpy("features").tobytes() == wanted
    client.stop()


def test_a_stream_is_refused(server, images):
    client = Client("grpc", server)
    failures: list[Any] = []
    client.start_stream(lambda **told: failures.append(told["error"]))
    client.async_stream_infer("small", [client.tensor(images)])
    client.stop_stream()
    assert "ModelStreamInfer is not supported" in failures[0].message()
    client.stop()
