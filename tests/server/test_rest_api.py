"""The REST API of a real server process, as used by clients of TensorFlow Serving."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurewire._tfs.predict_pb2 import PredictRequest
from featurewire_server.messages import tensors
from tests.server.support import stub_for
from tests.server.test_inference import write_half_plus_two
from tests.support.models import expected_vector
from tests.support.shared import SharedServer, server_for_all_workers

JPEG = b"\xff\xd8\xff\x00\x01"
PREDICT = "/v1/models/tiny:predict"


def b64(image: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(image).decode()}


class Rest:
    def __init__(self, server: SharedServer) -> None:
        self.server = server
        self.port = server.rest_port

    def request(self, method: str, path: str, body: object = None, **headers: str):
        """Status, JSON (or text) and headers of an answer, whether it is an error or not."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", body, headers, method=method
        )
        try:
            answer = urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            text = answer.read().decode()
        is_json = answer.headers["Content-Type"] == "application/json" and text
        return answer.status, json.loads(text) if is_json else text, answer.headers

    def get(self, path: str):
        return self.request("GET", path)[:2]

    def post(self, path: str, body: object):
        return self.request("POST", path, body)[:2]


@pytest.fixture(scope="module")
def rest(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    """Versions 1 and 2 of a tiny model, the first labelled `stable`; and half plus two."""

    def flags(folder: Path) -> list[str]:
        write_half_plus_two(folder / "half" / "1")
        models = folder / "models.config"
        models.write_text(
            'model_config_list { config { name: "tiny" model_platform: "tensorflow" '
            f'base_path: "{tiny_model}" model_version_policy {{ all {{}} }} '
            'version_labels { key: "stable" value: 1 } } '
            f'config {{ name: "half" model_platform: "tensorflow" base_path: "{folder}/half" }} }}'
        )
        monitoring = folder / "monitoring.config"
        monitoring.write_text('prometheus_config { enable: true path: "/my/metrics" }')
        return [
            f"--model_config_file={models}",
            f"--monitoring_config_file={monitoring}",
            "--rest_api_enable_cors_support",
            "--allow_version_labels_for_unavailable_models",
            "--engine=tensorflow",
        ]

    with server_for_all_workers(tmp_path_factory, "rest", flags) as server:
        yield Rest(server)


def test_status_shows_every_version_with_its_state(rest):
    status, answer = rest.get("/v1/models/tiny")
    assert status == 200
    by_version = {item["version"]: item for item in answer["model_version_status"]}
    assert by_version.keys() == {"1", "2"}
    assert by_version["1"] == {
        "version": "1",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    for path, versions in (("versions/1", ["1"]), ("labels/stable", ["2", "1"])):
        _, found = rest.get(f"/v1/models/tiny/{path}")
        assert [item["version"] for item in found["model_version_status"]] == versions


def test_metadata_shows_the_signatures(rest):
    status, answer = rest.get("/v1/models/tiny/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": "tiny", "signature_name": "", "version": "2"}
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["image_bytes"]["dtype"] == "DT_STRING"
    assert signature["inputs"]["image_bytes"]["tensor_shape"] == {
        "dim": [{"size": "-1", "name": ""}],
        "unknown_rank": False,
    }
    assert signature["outputs"]["features"]["tensor_shape"]["dim"][1]["size"] == "8"


@pytest.mark.parametrize(
    ("path", "version"),
    [
        (PREDICT, 2),
        ("/v1/models/tiny/versions/1:predict", 1),
        ("/v1/models/tiny/labels/stable:predict", 1),
    ],
)
def test_predict_answers_rows_for_rows_and_columns_for_columns(rest, path, version):
    vector = expected_vector(JPEG, version=version).tolist()
    rows = [b64(JPEG), {"image_bytes": b64(JPEG)}]
    for row in rows:
        status, answer = rest.post(path, {"instances": [row, row]})
        assert status == 200
        assert answer == {"predictions": [{"features": vector, "status": 0}] * 2}
    for columns in ([b64(JPEG)], {"image_bytes": [b64(JPEG)]}):
        status, answer = rest.post(path, {"signature_name": "serving_default", "inputs": columns})
        assert status == 200
        assert answer == {"outputs": {"features": [vector], "status": [0]}}


def test_a_lone_output_is_not_named(rest):
    _, answer = rest.post(PREDICT, {"signature_name": "manifest", "instances": ["", ""]})
    manifests = [json.loads(text) for text in answer["predictions"]]
    assert [manifest["vector_space"] for manifest in manifests] == ["tiny-2"] * 2


def test_a_bad_image_is_a_row_of_nan_literals(rest):
    _, answer = rest.post(PREDICT, {"instances": [b64(b"no image"), b64(JPEG)]})
    bad, good = answer["predictions"]
    assert np.isnan(bad["features"]).all()
    assert (bad["status"], good["status"]) == (2, 0)
    assert np.isfinite(good["features"]).all()


def test_rest_answers_what_grpc_answers(rest):
    images = [JPEG, b"\xff\xd8\xff" + bytes(range(256)), b""]
    request = PredictRequest()
    request.model_spec.name = "tiny"
    request.inputs["image_bytes"].CopyFrom(tensors.encode(np.array(images, dtype=object)))
    with stub_for(rest.server.target) as stub:
        outputs = stub.predict(request).outputs
    _, answer = rest.post(PREDICT, {"inputs": [b64(image) for image in images]})
    for name, proto in outputs.items():
        expected = tensors.decode(name, proto)
        array = np.array(answer["outputs"][name], dtype=expected.dtype)
        np.testing.assert_array_equal(array, expected)


def test_classify_and_regress_answer_lists(rest):
    examples = [{"x": 2.0}, {"x": 4.0}]
    body: dict[str, Any] = {"signature_name": "classify", "examples": examples}
    expected = [[["low", 3.0], ["high", -3.0]], [["low", 4.0], ["high", -4.0]]]
    assert rest.post("/v1/models/half:classify", body) == (200, {"results": expected})
    body = {"context": {"x": 6.0}, "examples": [{}, {"x": 2.0}]}
    assert rest.post("/v1/models/half:regress", body) == (200, {"results": [5.0, 3.0]})
    status, answer = rest.post("/v1/models/tiny:regress", {"examples": examples})
    assert status == 400
    assert answer["error"].startswith("No regression inputs found in SignatureDef: ")


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("br", bytes)]
)
def test_gzip_bodies_are_unpacked_and_others_taken_as_they_are(rest, encoding, pack):
    body = pack(json.dumps({"instances": [b64(JPEG)]}).encode())
    status, answer, _ = rest.request("POST", PREDICT, body, **{"Content-Encoding": encoding})
    assert (status, answer["predictions"][0]["status"]) == (200, 0)


def test_a_body_of_a_windows_client_with_a_byte_order_mark(rest):
    body = b"\xef\xbb\xbf" + json.dumps({"instances": [b64(JPEG)]}).encode() + b"\r\n"
    status, answer, _ = rest.request("POST", PREDICT, body)
    assert (status, answer["predictions"][0]["status"]) == (200, 0)


def test_a_gzip_bomb_is_refused(rest):
    bomb = gzip.compress(bytes(300 << 20), 1)
    status, answer, _ = rest.request("POST", PREDICT, bomb, **{"Content-Encoding": "gzip"})
    assert status == 400
    assert "unpacks to more than" in answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("GET", "/", None, 404, "Malformed request: GET /"),
        ("GET", "/v1/models", None, 400, "Missing model name in request."),
        ("POST", "/v1/models/tiny", b"{}", 400, "Malformed request: POST /v1/models/tiny"),
        ("PUT", PREDICT, b"{}", 400, f"Malformed request: PUT {PREDICT}"),
        ("GET", "/v1/models/other", None, 404, "Could not find any versions of model other"),
        ("GET", "/v1/models/tiny/versions/9", None, 404, "Could not find version 9 of model tiny"),
        (
            "POST",
            "/v1/models/other:predict",
            b'{"instances": [1]}',
            404,
            "Servable not found for request: Latest(other)",
        ),
        (
            "POST",
            "/v1/models/tiny/versions/9:predict",
            b'{"instances": [1]}',
            404,
            "Servable not found for request: Specific(tiny, 9)",
        ),
        (
            "POST",
            "/v1/models/tiny/labels/x:predict",
            b'{"instances": [1]}',
            400,
            "Unrecognized servable version label: x",
        ),
        (
            "POST",
            PREDICT,
            b'{"signature_name": "x", "instances": [1]}',
            400,
            'Serving signature name: "x" not found in signature def',
        ),
        (
            "POST",
            PREDICT,
            b'{"signature_name": "x"}',  # the name is checked before the keys
            400,
            'Serving signature name: "x" not found in signature def',
        ),
        (
            "POST",
            "/v1/models/other:predict",
            b"{}",
            404,
            "Servable not found for request: Latest(other)",
        ),
        (
            "POST",
            PREDICT,
            b'{"signature_name": 1}',
            400,
            'JSON Value: {"signature_name": 1} not formatted correctly. '
            "'signature_name' key must be a string value.",
        ),
        ("GET", "/v1/models/tiny?x=1", None, 404, "Could not find any versions of model tiny?x=1"),
        (
            "POST",
            f"{PREDICT}?x=1",
            b'{"instances": [""]}',
            400,
            f"Malformed request: POST {PREDICT}?x=1",
        ),
        (
            "POST",
            "/v1/models/tiny:PREDICT",
            b'{"instances": [""]}',
            400,
            "Malformed request: POST /v1/models/tiny:PREDICT",
        ),
        ("POST", PREDICT, b"", 400, "JSON Parse error: The document is empty"),
        ("POST", PREDICT, b"{}", 400, "Missing 'inputs' or 'instances' key"),
        (
            "POST",
            PREDICT,
            b'{"inputs": 1}',
            400,
            "JSON Value: 1 Type: Number is not of expected type: string",
        ),
    ],
)
def test_errors_have_tensorflow_servings_status_shape_and_text(
    rest, method, path, body, status, text
):
    assert rest.request(method, path, body)[:2] == (status, {"error": text})


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.just(b64(JPEG)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["image_bytes", "b64", "x"]), inner, max_size=2)
    ),
    max_leaves=6,
)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from(["instances", "inputs", "examples", "signature_name"]),
    JSON_VALUES,
    st.sampled_from(["predict", "classify", "regress"]),
)
def test_no_document_is_the_servers_fault(rest, key, value, verb):
    status, answer = rest.post(f"/v1/models/tiny:{verb}", {key: value})
    assert status in (200, 400, 501)
    assert status == 200 or answer.keys() == {"error"}


def test_a_wrong_shape_is_a_bad_request(rest):
    status, answer = rest.post(PREDICT, {"inputs": b64(JPEG)})
    assert status == 400
    assert answer.keys() == {"error"}


def test_cross_origin_requests_are_allowed_when_the_flag_says_so(rest):
    for method in ("OPTIONS", "GET"):
        status, _, headers = rest.request(method, "/v1/models/tiny", Origin="https://page.example")
        assert status == 200
        assert headers["Access-Control-Allow-Origin"] == "*"
        assert headers["Access-Control-Allow-Headers"] == "Content-Type"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (PREDICT, {"Origin": "http://page.example"}, 200),
        (PREDICT, {}, 400),
        (PREDICT, {"Origin": "file://"}, 400),
        ("/", {"Origin": "http://page.example"}, 404),
    ],
)
def test_options_is_for_pages_of_http_and_https(rest, path, headers, status):
    found, answer, _ = rest.request("OPTIONS", path, **headers)
    assert found == status
    assert status == 200 or answer.keys() == {"error"}


def test_metrics_are_at_the_path_of_the_monitoring_config(rest):
    rest.post(PREDICT, {"instances": [b64(JPEG)]})
    rest.post(PREDICT, {"instances": 1})
    status, text, headers = rest.request("GET", "/my/metrics?module=a")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    counts = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        counts[name] = value
    ok = ':tensorflow:serving:request_count{model_name="tiny",status="OK"}'
    bad = ':tensorflow:serving:request_count{model_name="tiny",status="INVALID_ARGUMENT"}'
    latency = ":tensorflow:serving:request_latency_count"
    labels = 'model_name="tiny",API="Predict",entrypoint="REST"'
    assert int(counts[ok]) >= 1
    assert int(counts[bad]) >= 1
    assert int(counts[f"{latency}{{{labels}}}"]) >= 1
    assert rest.get("/monitoring/prometheus/metrics")[0] == 404


def test_http_clients_that_misbehave_do_not_hurt_grpc(rest):
    sockets = []
    for number in range(200):
        sock = socket.create_connection(("127.0.0.1", rest.port), timeout=60)
        sock.sendall(
            [
                b"",
                b"\x00" * 500,
                b"POST " + PREDICT.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n",
                b"GET /v1/models/tiny HTTP/1.1\r\nHo",
            ][number % 4]
        )
        sockets.append(sock)
    test_rest_answers_what_grpc_answers(rest)
    with stub_for(rest.server.target) as stub:
        assert stub.embed().shape == (1, 8)
    for sock in sockets:
        sock.close()
