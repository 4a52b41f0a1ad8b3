"""Behaviour that all protocols of the server share."""

from __future__ import annotations

import base64
import json

import grpc
import numpy as np

from featurewire_server._tfs import open_inference_pb2 as oip
from tests.server.endpoints import (
    EMBEDDINGS,
    HEADER,
    INFER,
    LIMIT,
    Endpoints,
    code_of,
    data_uri,
    infer_request,
    json_request,
)
from tests.server.support import JPEG, code_and_text, stub_for
from tests.support.process import ServerProcess, free_port

Code = grpc.StatusCode


def test_one_image_has_the_same_bytes_through_every_endpoint(endpoints, photos):
    images = [photo.read_bytes() for photo in photos[:3]]
    wanted = endpoints.predict(images)["features"].tobytes()
    assert endpoints.call("ModelInfer", infer_request(*images)).raw_output_contents[0] == wanted
    body = json_request(*images, parameters={"binary_data_output": True})
    status, answer, headers = endpoints.http("POST", INFER, body)
    assert status == 200
    head = json.loads(answer[: int(headers[HEADER])])
    size = head["outputs"][0]["parameters"]["binary_data_size"]
    assert answer[int(headers[HEADER]) :][:size] == wanted
    _, answer = endpoints.json("POST", INFER, json_request(*images))
    assert np.array(answer["outputs"][0]["data"], np.float32).tobytes() == wanted
    uris = [data_uri(image) for image in images]
    _, answer = endpoints.embed(input=uris)
    rows = [np.array(each["embedding"], np.float32).tobytes() for each in answer["data"]]
    assert b"".join(rows) == wanted
    _, answer = endpoints.embed(input=uris, encoding_format="base64")
    rows = [base64.b64decode(each["embedding"]) for each in answer["data"]]
    assert b"".join(rows) == wanted


def test_a_version_is_a_number_or_a_label(endpoints):
    for version in ("", "1", "stable"):
        assert endpoints.call("ModelInfer", infer_request(JPEG, model_version=version))
    for path in ("/versions/1", "/versions/stable", ""):
        assert endpoints.json("GET", f"/v2/models/tiny{path}/ready")[0] == 200
        assert endpoints.json("POST", f"/v2/models/tiny{path}/infer", json_request(JPEG))[0] == 200
    for name in ("tiny", "tiny:1", "tiny:stable"):
        status, answer = endpoints.embed(model=name, input=data_uri(JPEG))
        assert (status, answer["model"]) == (200, "tiny:1")


def test_each_endpoint_is_counted_like_predict(endpoints):
    endpoints.call("ModelInfer", infer_request(JPEG))
    endpoints.json("POST", INFER, json_request(JPEG))
    endpoints.embed(input=data_uri(JPEG))
    lines = endpoints.metrics()
    for api, entrypoint in (("ModelInfer", "GRPC"), ("ModelInfer", "REST"), ("Embeddings", "REST")):
        assert f'API="{api}",entrypoint="{entrypoint}"' in lines


def test_ten_thousand_inputs_get_one_short_error(endpoints):
    request = oip.ModelInferRequest(model_name="tiny")
    for at in range(10_000):
        request.inputs.add(name=f"input{at}", datatype="BYTES", shape=[0])
        request.raw_input_contents.append(b"")
    code, text = code_and_text(lambda: endpoints.call("ModelInfer", request))
    assert code is Code.INVALID_ARGUMENT
    assert text == "The request has 10000 inputs; up to 1024 are taken"
    inputs = [
        {"name": f"input{at}", "datatype": "BYTES", "shape": [0], "data": []}
        for at in range(10_000)
    ]
    status, answer = endpoints.json("POST", INFER, {"inputs": inputs})
    assert (status, answer["error"]) == (400, text)
    status, answer = endpoints.embed(input=[data_uri(JPEG)] * 10_000)
    assert status == 400
    assert "10000 images" in answer["error"]["message"]
    endpoints.check_alive()


def test_unknown_models_and_versions_are_not_found(endpoints):
    for name, version in (("other", ""), ("tiny", "2")):
        request = infer_request(JPEG, model_version=version)
        request.model_name = name
        assert code_of(endpoints, request) is Code.NOT_FOUND
        path = f"/v2/models/{name}" + (f"/versions/{version}" if version else "")
        assert endpoints.json("POST", f"{path}/infer", json_request(JPEG))[0] == 404
        assert endpoints.json("GET", path)[0] == 404
        model = f"{name}:{version}" if version else name
        status, answer = endpoints.embed(model=model, input=data_uri(JPEG))
        assert (status, answer["error"]["code"]) == (404, "model_not_found")
    request = infer_request(JPEG, model_version="9" * 19)
    assert code_and_text(lambda: endpoints.call("ModelInfer", request))[0] is Code.INVALID_ARGUMENT


def test_errors_of_http_have_the_form_of_the_endpoint(endpoints):
    status, answer = endpoints.json("GET", EMBEDDINGS)
    assert (status, answer["error"]["type"]) == (405, "invalid_request_error")
    status, answer = endpoints.announce(EMBEDDINGS, LIMIT)
    assert (status, answer["error"]["type"]) == (413, "invalid_request_error")
    assert endpoints.announce(INFER, LIMIT)[1].keys() == {"error"}
    assert endpoints.json("POST", EMBEDDINGS, b"\0")[1]["error"]["message"]
    assert endpoints.json("DELETE", INFER)[0] == 404


def test_the_server_has_lost_nothing_after_all_that(endpoints):
    endpoints.check_alive()


def test_without_the_options_both_endpoints_are_shut(tiny_model, tmp_path):
    port = free_port()
    server = ServerProcess(
        "--model_name=tiny",
        f"--model_base_path={tiny_model}",
        f"--rest_api_port={port}",
        "--engine=tensorflow",
        log=tmp_path / "log",
    ).start()
    try:
        with stub_for(server.target) as stub:
            shut = Endpoints(server, port, stub)
            code, _ = code_and_text(lambda: shut.call("ServerLive", oip.ServerLiveRequest()))
            assert code is Code.UNIMPLEMENTED
            assert shut.json("GET", "/v2/health/live")[0] == 404
            assert shut.embed(input=data_uri(JPEG))[0] == 400
    finally:
        server.stop()
