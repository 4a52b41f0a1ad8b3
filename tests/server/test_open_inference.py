"""The Open Inference Protocol v2 on a real server: answers, and bad input."""

from __future__ import annotations

import json
from typing import Any

import grpc
import numpy as np
import pytest

from featurewire_server._tfs import open_inference_pb2 as oip
from tests.server.endpoints import (
    HEADER,
    INFER,
    code_of,
    infer_request,
    json_request,
    strings,
)
from tests.server.support import JPEG, code_and_text
from tests.support.models import expected_vector

Code = grpc.StatusCode


def test_raw_inputs_get_raw_outputs_and_typed_inputs_typed_ones(endpoints):
    wanted = expected_vector(JPEG)
    raw = endpoints.call("ModelInfer", infer_request(JPEG, id="7"))
    assert (raw.model_name, raw.model_version, raw.id) == ("tiny", "1", "7")
    assert [(each.name, each.datatype, [*each.shape]) for each in raw.outputs] == [
        ("features", "FP32", [1, 8]),
        ("status", "INT32", [1]),
    ]
    assert raw.raw_output_contents[0] == wanted.tobytes()
    typed = endpoints.call("ModelInfer", infer_request(JPEG, typed=True))
    assert not typed.raw_output_contents
    assert [*typed.outputs[0].contents.fp32_contents] == wanted.tolist()
    assert [*typed.outputs[1].contents.int_contents] == [0]


@pytest.mark.parametrize("surplus", [0, 10_000], ids=["few", "many"])
def test_the_fields_of_a_request_may_come_in_any_order(endpoints, surplus):
    request = infer_request(JPEG)
    raw = oip.ModelInferRequest(raw_input_contents=request.raw_input_contents)
    request.ClearField("raw_input_contents")
    # The last name counts.
    names = oip.ModelInferRequest(model_name="other").SerializeToString() * surplus
    data = names + raw.SerializeToString() + request.SerializeToString()
    answer = endpoints.call("ModelInfer", data)
    assert answer.raw_output_contents[0] == expected_vector(JPEG).tobytes()


@pytest.mark.parametrize("kept", [0.3, 0.999])
def test_a_request_that_is_cut_short_is_refused(endpoints, kept):
    data = infer_request(JPEG).SerializeToString()
    assert code_of(endpoints, data[: int(len(data) * kept)]) is Code.INVALID_ARGUMENT


def test_a_bad_image_costs_only_itself(endpoints):
    answer = endpoints.call("ModelInfer", infer_request(JPEG, b"", b"text", JPEG))
    status = np.frombuffer(answer.raw_output_contents[1], np.int32)
    assert status.tolist() == [0, 1, 2, 0]
    rows = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(4, 8)
    np.testing.assert_array_equal(rows[[0, 3]], [expected_vector(JPEG)] * 2)
    assert np.isnan(rows[1:3]).all()
    _, answer = endpoints.json("POST", INFER, json_request(JPEG, b"text"))
    assert answer["outputs"][0]["data"][8:] == [None] * 8
    assert answer["outputs"][1]["data"] == [0, 2]


def test_only_the_outputs_that_are_asked_for_come(endpoints):
    request = infer_request(JPEG)
    request.outputs.add(name="status")
    answer = endpoints.call("ModelInfer", request)
    assert [each.name for each in answer.outputs] == ["status"]
    body = json_request(JPEG, outputs=[{"name": "features", "parameters": {"binary_data": True}}])
    _, answer, headers = endpoints.http("POST", INFER, body)
    assert answer[int(headers[HEADER]) :] == expected_vector(JPEG).tobytes()


def test_health_and_metadata_say_what_is_served(endpoints):
    assert endpoints.call("ServerLive", oip.ServerLiveRequest()).live
    assert endpoints.call("ServerReady", oip.ServerReadyRequest()).ready
    assert endpoints.json("GET", "/v2/health/live") == (200, {"live": True, "ready": True})
    assert endpoints.json("GET", "/v2/health/ready")[0] == 200
    name = endpoints.call("ServerMetadata", oip.ServerMetadataRequest()).name
    assert name == "featurewire-server"
    assert endpoints.json("GET", "/v2")[1]["extensions"] == ["binary_tensor_data"]
    for model, version, ready in (("tiny", "1", True), ("tiny", "2", False), ("other", "", False)):
        request = oip.ModelReadyRequest(name=model, version=version)
        assert endpoints.call("ModelReady", request).ready is ready
    assert endpoints.json("GET", "/v2/models/tiny/versions/2/ready")[0] == 503
    assert endpoints.json("GET", "/v2/models/other/ready")[0] == 404
    found = endpoints.call("ModelMetadata", oip.ModelMetadataRequest(name="tiny"))
    assert (found.platform, [*found.versions]) == ("tensorflow_savedmodel", ["1"])
    assert endpoints.json("GET", "/v2/models/tiny")[1] == {
        "name": "tiny",
        "versions": ["1"],
        "platform": "tensorflow_savedmodel",
        "inputs": [{"name": "image_bytes", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "features", "datatype": "FP32", "shape": [-1, 8]},
            {"name": "status", "datatype": "INT32", "shape": [-1]},
        ],
    }


def test_another_signature_is_a_parameter(endpoints):
    request = oip.ModelInferRequest(model_name="tiny")
    request.parameters["signature_name"].string_param = "manifest"
    request.inputs.add(name="request", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(strings(b""))
    (raw,) = endpoints.call("ModelInfer", request).raw_output_contents
    assert json.loads(raw[4:])["vector_space"] == "tiny-1"


def test_a_timeout_in_microseconds_is_a_deadline(endpoints):
    request = infer_request(JPEG)
    request.parameters["timeout"].int64_param = 1
    code, _ = code_and_text(lambda: endpoints.call("ModelInfer", request))
    assert code in (Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED)
    status, answer = endpoints.json("POST", INFER, json_request(JPEG, parameters={"timeout": 1}))
    assert status in (429, 504)
    assert answer.keys() == {"error"}


LIARS: dict[str, Any] = {
    "unknown datatype": {"datatype": "JPEG"},
    "wrong datatype": {"datatype": "FP32", "shape": [1], "raw": b"\0\0\0\0"},
    "no datatype": {"datatype": ""},
    "negative shape": {"shape": [-1]},
    "a huge shape": {"shape": [1 << 31]},
    "a shape beyond all": {"shape": [1 << 62, 4, 4]},
    "no elements of a huge shape": {"shape": [0, 1 << 62]},
    "a rank of 100": {"shape": [1] * 100},
    "too few strings": {"shape": [2]},
    "too many strings": {"shape": [1], "raw": strings(JPEG, JPEG)},
    "a length of 4 GiB": {"raw": b"\xff\xff\xff\xff" + JPEG},
    "a cut length": {"raw": strings(JPEG) + b"\0\0"},
    "no bytes": {"raw": b""},
    "wrong byte count": {"datatype": "INT64", "shape": [1], "raw": b"\0" * 7},
    "unknown input": {"name": "x"},
}


@pytest.mark.parametrize("lie", LIARS.values(), ids=[*LIARS])
def test_a_lying_tensor_is_refused_through_grpc(endpoints, lie):
    lie = {"name": "image_bytes", "datatype": "BYTES", "shape": [1], "raw": strings(JPEG)} | lie
    request = oip.ModelInferRequest(model_name="tiny", raw_input_contents=[lie.pop("raw")])
    request.inputs.add(**lie)
    code, text = code_and_text(lambda: endpoints.call("ModelInfer", request))
    assert code is Code.INVALID_ARGUMENT, text
    assert 0 < len(text) < 500
    endpoints.check_alive()


@pytest.mark.parametrize("lie", LIARS.values(), ids=[*LIARS])
def test_a_lying_tensor_is_refused_through_rest(endpoints, lie):
    lie = {"name": "image_bytes", "datatype": "BYTES", "shape": [1], "raw": strings(JPEG)} | lie
    raw = lie.pop("raw")
    head = json.dumps({"inputs": [lie | {"parameters": {"binary_data_size": len(raw)}}]}).encode()
    status, text, _ = endpoints.http("POST", INFER, head + raw, **{HEADER: str(len(head))})
    assert status == 400, text
    assert 0 < len(json.loads(text)["error"]) < 500
    endpoints.check_alive()


@pytest.mark.parametrize(
    ("datatype", "field", "items", "shape"),
    [
        ("UINT8", "uint_contents", [300], [1]),
        ("INT8", "int_contents", [-129], [1]),
        ("FP16", "fp32_contents", [1.0], [1]),
        ("FP32", "int_contents", [1], [1]),
        ("FP32", "fp32_contents", [1.0, 2.0], [1]),
        ("BYTES", "bytes_contents", [JPEG], [2]),
        ("BOOL", "bool_contents", [], [1]),
    ],
)
def test_typed_contents_that_do_not_fit_are_refused(endpoints, datatype, field, items, shape):
    request = oip.ModelInferRequest(model_name="tiny")
    tensor = request.inputs.add(name="image_bytes", datatype=datatype, shape=shape)
    getattr(tensor.contents, field).extend(items)
    assert code_and_text(lambda: endpoints.call("ModelInfer", request))[0] is Code.INVALID_ARGUMENT


def test_a_request_that_contradicts_itself_is_refused(endpoints):
    both = infer_request(JPEG)
    both.inputs[0].contents.bytes_contents.append(JPEG)
    twice = infer_request(JPEG)
    twice.inputs.append(twice.inputs[0])
    twice.raw_input_contents.append(twice.raw_input_contents[0])
    surplus = infer_request(JPEG)
    surplus.raw_input_contents.append(b"")
    output = infer_request(JPEG)
    output.outputs.add(name="nothing")
    empty = oip.ModelInferRequest(model_name="tiny")
    for request in (both, twice, surplus, output, empty, b"\xff\xff\xff"):
        assert code_of(endpoints, request) is Code.INVALID_ARGUMENT


def test_a_large_image_counts_as_its_bytes(endpoints):
    answer = endpoints.call("ModelInfer", infer_request(JPEG + b"\0" * (12 << 20)))
    assert np.frombuffer(answer.raw_output_contents[1], np.int32).tolist() == [0]


def test_a_tensor_of_countless_strings_is_refused_for_its_memory(endpoints):
    raw = b"\0\0\0\0" * (2 << 20)  # 8 MiB that would decode to millions of strings
    request = oip.ModelInferRequest(model_name="tiny", raw_input_contents=[raw])
    request.inputs.add(name="image_bytes", datatype="BYTES", shape=[2 << 20])
    assert (
        code_and_text(lambda: endpoints.call("ModelInfer", request))[0] is Code.RESOURCE_EXHAUSTED
    )
    endpoints.check_alive()


@pytest.mark.parametrize(
    "name", ["ModelStreamInfer", "RepositoryIndex", "RepositoryModelLoad", "ModelConfig"]
)
def test_extensions_are_refused_with_a_reason(endpoints, name):
    code, text = code_and_text(lambda: endpoints.call(name, b""))
    assert code is Code.UNIMPLEMENTED
    assert f"{name} is not supported" in text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/tiny/load"),
        ("GET", "/v2/models/tiny/config"),
        ("GET", "/v2/models/tiny/versions/1/stats"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/models/tiny/generate"),
    ],
)
def test_extensions_are_refused_over_rest(endpoints, method, path):
    status, answer = endpoints.json(method, path, b"" if method == "POST" else None)
    assert status == 501
    assert "is not supported" in answer["error"]


@pytest.mark.parametrize("name", ["sequence_id", "shared_memory_region", "classification"])
def test_parameters_of_extensions_are_refused(endpoints, name):
    request = infer_request(JPEG)
    request.inputs[0].parameters[name].int64_param = 1
    code, text = code_and_text(lambda: endpoints.call("ModelInfer", request))
    assert code is Code.UNIMPLEMENTED
    assert name in text


BODIES: dict[str, Any] = {
    "not JSON": b"\xff\xd8\xff",
    "a list": [],
    "no inputs": {},
    "inputs is an object": {"inputs": {}},
    "an input is a number": {"inputs": [1]},
    "no shape": {"inputs": [{"name": "image_bytes", "datatype": "BYTES", "data": []}]},
    "a shape of text": {
        "inputs": [{"name": "image_bytes", "datatype": "BYTES", "shape": ["1"], "data": ["x"]}]
    },
    "no data": {"inputs": [{"name": "image_bytes", "datatype": "BYTES", "shape": [1]}]},
    "ragged data": json_request(JPEG)
    | {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [[1], 2]}]},
    "text for a number": {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": ["1"]}]
    },
    "a fraction for an integer": {
        "inputs": [{"name": "x", "datatype": "INT32", "shape": [1], "data": [1.5]}]
    },
    "a number beyond 64 bits": {
        "inputs": [{"name": "x", "datatype": "UINT64", "shape": [1], "data": [1 << 64]}]
    },
    "less than nothing": {
        "inputs": [{"name": "x", "datatype": "UINT8", "shape": [1], "data": [-1]}]
    },
    "a number for bytes": {
        "inputs": [{"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": [1]}]
    },
    "no base64": {
        "inputs": [
            {"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": [{"b64": "%"}]}
        ]
    },
    "binary that is not there": {
        "inputs": [
            {
                "name": "image_bytes",
                "datatype": "BYTES",
                "shape": [1],
                "parameters": {"binary_data_size": 1 << 31},
            }
        ]
    },
    "binary and data": {
        "inputs": [json_request(JPEG)["inputs"][0] | {"parameters": {"binary_data_size": 0}}]
    },
    "a parameter that is a list": json_request(JPEG, parameters={"x": []}),
    "an id that is a number": json_request(JPEG, id=1),
    "an output that is unknown": json_request(JPEG, outputs=[{"name": "x"}]),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=[*BODIES])
def test_a_body_that_is_no_request_is_refused(endpoints, body):
    status, answer = endpoints.json("POST", INFER, body)
    assert status == 400
    assert answer.keys() == {"error"}


@pytest.mark.parametrize("header", ["-1", "x", "1e3", "999999", "9" * 400])
def test_a_wrong_header_length_is_refused(endpoints, header):
    assert endpoints.json("POST", INFER, json_request(JPEG), **{HEADER: header})[0] == 400


def test_bytes_after_the_json_that_belong_to_no_input_are_refused(endpoints):
    head = json.dumps(json_request(JPEG)).encode()
    assert endpoints.json("POST", INFER, head + b"rest", **{HEADER: str(len(head))})[0] == 400
