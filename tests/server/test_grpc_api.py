"""The gRPC API as seen by clients of TensorFlow Serving: answers, codes and texts."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf

from featurewire._tfs.get_model_metadata_pb2 import SignatureDefMap
from featurewire._tfs.get_model_status_pb2 import GetModelStatusRequest
from featurewire._tfs.model_management_pb2 import ReloadConfigRequest, ReloadConfigResponse
from featurewire._tfs.predict_pb2 import PredictRequest, PredictResponse
from featurewire_server.batching.runner import Runner
from featurewire_server.common.errors import ServingError
from featurewire_server.common.metrics import Metrics
from featurewire_server.messages import predict, tensors
from featurewire_server.transport import rest
from tests.server.support import (
    JPEG,
    MODEL,
    PREDICTION,
    TIMEOUT,
    FakeEngine,
    Stub,
    code_and_text,
    config,
    direct,
    model,
    predict_request,
    served,
    spec,
)
from tests.support.models import expected_vector

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
FAILED = grpc.StatusCode.FAILED_PRECONDITION


def test_predict_answers_with_the_newest_version_and_says_which(tiny: Stub) -> None:
    response = tiny.predict(predict_request(image_bytes=[JPEG, b"no image", b""]))
    assert response.model_spec.name == "tiny"
    assert response.model_spec.version.value == 2
    assert response.model_spec.signature_name == "serving_default"
    assert list(response.outputs["status"].int_val) == [0, 2, 1]
    features = tensors.decode("features", response.outputs["features"])
    np.testing.assert_array_equal(features[0], expected_vector(JPEG, version=2))
    assert np.isnan(features[1:]).all()


def test_floats_come_in_float_val(tiny: Stub) -> None:
    features = tiny.predict(predict_request(image_bytes=[JPEG])).outputs["features"]
    assert len(features.float_val) == 8
    assert not features.tensor_content


def test_all_types_come_in_tensor_content_when_asked_for(tiny_model: Path) -> None:
    with served(config(model("tiny", tiny_model)), tensor_content=True) as stub:
        features = stub.predict(predict_request(image_bytes=[JPEG])).outputs["features"]
        assert not features.float_val
        np.testing.assert_array_equal(
            np.frombuffer(features.tensor_content, np.float32), expected_vector(JPEG, version=2)
        )
        request = predict_request(spec(signature="manifest"), request=[b""])
        manifest = stub.predict(request).outputs["manifest"]
        assert not manifest.string_val
        (text,) = tensors.decode("manifest", manifest)
        assert json.loads(text)["vector_space"] == "tiny-2"


def test_images_may_come_in_tensor_content_and_in_short_forms(tiny: Stub) -> None:
    request = predict_request(image_bytes=[JPEG, b""])
    images = request.inputs["image_bytes"]
    images.CopyFrom(tensors.encode(np.array([JPEG, b""], object), content=True))
    assert list(tiny.predict(request).outputs["status"].int_val) == [0, 1]
    images.ClearField("tensor_content")
    images.string_val.append(JPEG)
    assert list(tiny.predict(request).outputs["status"].int_val) == [0, 0]


def test_a_version_and_a_label_choose(tiny: Stub) -> None:
    for chosen in (spec(version=1), spec(label="stable")):
        np.testing.assert_array_equal(tiny.embed(chosen)[0], expected_vector(JPEG, version=1))


def test_the_output_filter_chooses(tiny: Stub) -> None:
    request = predict_request(image_bytes=[JPEG])
    request.output_filter.append("status")
    assert set(tiny.predict(request).outputs) == {"status"}


def test_another_signature_answers_under_its_name(tiny: Stub) -> None:
    response = tiny.predict(predict_request(spec(signature="manifest"), request=[b"", b""]))
    assert response.model_spec.signature_name == "manifest"
    assert len(response.outputs["manifest"].string_val) == 2


def no_spec() -> PredictRequest:
    request = predict_request(image_bytes=[JPEG])
    request.ClearField("model_spec")
    return request


def filtered(*names: str) -> PredictRequest:
    request = predict_request(image_bytes=[JPEG])
    request.output_filter.extend(names)
    return request


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (no_spec(), INVALID, "Missing ModelSpec"),
        (predict_request(spec("")), INVALID, "ModelSpec has no name specified."),
        (
            predict_request(spec("none"), image_bytes=[JPEG]),
            NOT_FOUND,
            "Servable not found for request: Latest(none)",
        ),
        (
            predict_request(spec(version=9), image_bytes=[JPEG]),
            NOT_FOUND,
            "Servable not found for request: Specific(tiny, 9)",
        ),
        (
            predict_request(spec(label="canary"), image_bytes=[JPEG]),
            INVALID,
            "Unrecognized servable version label: canary",
        ),
        (
            predict_request(spec(signature="none"), image_bytes=[JPEG]),
            FAILED,
            'Serving signature key "none" not found.',
        ),
        (
            predict_request(image_bytes=[JPEG], more=[JPEG]),
            INVALID,
            "input size does not match signature: 2!=1 len({image_bytes,more}) != "
            "len({image_bytes}). Sent extra: {more}. Missing but required: {}.",
        ),
        (
            predict_request(),
            INVALID,
            "input size does not match signature: 0!=1 len({}) != len({image_bytes}). "
            "Sent extra: {}. Missing but required: {image_bytes}.",
        ),
        (
            predict_request(image=[JPEG]),
            INVALID,
            "Signature input alias: image_bytes(feed name: serving_default_image_bytes:0) not "
            "found in request and no default value provided. Inputs expected to be in the request "
            "{image}, or default input alias set: ",
        ),
        (
            filtered("status", "status"),
            INVALID,
            "duplicate output tensor alias: status",
        ),
        (
            filtered("vector"),
            INVALID,
            "output tensor alias not found in signature: vector "
            "Outputs expected to be in the set {features,status}.",
        ),
        (
            predict_request(image_bytes=np.zeros(1, np.float32)),
            INVALID,
            "Expects arg[0] to be string but float is provided",
        ),
    ],
)
def test_wrong_requests_get_the_code_and_text_of_tensorflow_serving(
    tiny: Stub, request_: PredictRequest, code: grpc.StatusCode, text: str
) -> None:
    assert code_and_text(lambda: tiny.predict(request_)) == (code, text)


@pytest.fixture(scope="module")
def loose(tmp_path_factory) -> Iterator[Stub]:
    """Signatures that differ from their graph; see `write_loose`."""
    base = tmp_path_factory.mktemp("loose")
    write_loose(base / "1")
    with served(config(model("loose", base))) as stub:
        yield stub


def write_loose(path: Path) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 1], name="x")
        n = v1.placeholder(tf.int32, [], name="n")
        text = v1.placeholder_with_default(tf.constant(b"a\0b\0"), [], name="text")
        rows = v1.placeholder(tf.float32, [None, 3], name="rows")
        doubled = tf.multiply(x, 2.0)
        info = v1.saved_model.build_tensor_info
        shapeless = info(x)
        shapeless.ClearField("tensor_shape")
        predict_name = "tensorflow/serving/predict"

        def signature(inputs: dict, outputs: dict):
            infos = {
                alias: info(tensor) if isinstance(tensor, tf.Tensor) else tensor
                for alias, tensor in inputs.items()
            }
            outputs = {alias: info(tensor) for alias, tensor in outputs.items()}
            return v1.saved_model.build_signature_def(infos, outputs, predict_name)

        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map={
                "serving_default": signature({"x": x}, {"y": doubled, "again": doubled}),
                "shapeless": signature({"x": shapeless}, {"y": doubled}),
                "two": signature({"a": x, "b": n}, {"y": doubled + tf.cast(n, tf.float32)}),
                "text": signature({"text": text}, {"same": tf.identity(text)}),
                "matmul": signature({"rows": rows}, {"y": tf.matmul(rows, tf.ones([3, 2]))}),
            },
        )
        builder.save()


@pytest.mark.parametrize("signature", ["serving_default", "shapeless"])
@pytest.mark.parametrize("shape", [(), (1,), (2, 1), (2, 3), (1, 2, 1)])
def test_the_session_decides_about_shapes_not_the_signature(
    loose: Stub, signature: str, shape: tuple[int, ...]
) -> None:
    x = np.full(shape, 1.5, np.float32)
    answer = loose.predict(predict_request(spec("loose", signature=signature), x=x))
    found = tensors.decode("y", answer.outputs["y"])
    assert found.shape == shape
    assert (found == 3).all()


def test_what_the_graph_cannot_run_is_the_requests_fault(loose: Stub) -> None:
    request = predict_request(spec("loose", signature="matmul"), rows=np.ones((2, 2), np.float32))
    code, text = code_and_text(lambda: loose.predict(request))
    assert code is INVALID
    assert "Matrix size-incompatible: In[0]: [2,2], In[1]: [3,2]" in text


def test_a_wrong_dtype_is_named_by_the_place_of_its_tensor(loose: Stub) -> None:
    two = spec("loose", signature="two")
    good = {"a": np.ones((1, 1), np.float32), "b": np.array(1, np.int32)}
    assert loose.predict(predict_request(two, **good)).outputs["y"].float_val == [3]
    # A session sorts its feeds, so `n:0` comes before `x:0`.
    for alias, text in (
        ("a", "Expects arg[1] to be float but int32 is provided"),
        ("b", "Expects arg[0] to be int32 but float is provided"),
    ):
        wrong = good | {alias: good["b" if alias == "a" else "a"]}
        request = predict_request(two, **wrong)
        assert code_and_text(partial(loose.predict, request)) == (INVALID, text)


def test_a_scalar_string_keeps_the_zeros_at_its_end(loose: Stub) -> None:
    request = predict_request(spec("loose", signature="text"), text=np.array(b"a\0b\0", object))
    assert loose.predict(request).outputs["same"].string_val == [b"a\0b\0"]


@pytest.fixture(scope="module")
def loose_rest(loose: Stub) -> Iterator[Callable]:
    """Status and JSON of a request to the REST API of `loose`."""
    server = rest.start(loose.api, rest.RestConfig(threads=2, timeout_seconds=20))

    def call(method: str, path: str, body: str = "") -> tuple[int, object]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
        with contextlib.closing(connection):
            connection.request(method, path, body)
            answer = connection.getresponse()
            text = answer.read().decode()
            return answer.status, json.loads(text) if text else None

    yield call
    server.stop(5)


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ('"inputs": [1.5]', {"outputs": [3.0]}),
        ('"inputs": 1.5', {"outputs": 3.0}),
        ('"instances": [20000000, 16777217]', {"predictions": [4e7, 33554432.0]}),
        ('"instances": [1e39, -1e39]', {"predictions": [math.inf, -math.inf]}),
        ('"signature_name": "none", "instances": [1], "instances": [2]', {"predictions": [2.0]}),
    ],
)
def test_rest_reads_shapes_and_numbers_as_tensorflow_serving_does(
    loose_rest, body: str, answer: dict
) -> None:
    document = f'{{"signature_name": "shapeless", {body}}}'
    assert loose_rest("POST", "/v1/models/loose:predict", document) == (200, answer)


def test_rest_refuses_deep_nesting(loose_rest) -> None:
    assert loose_rest("OPTIONS", "/v1/models/loose")[0] == 400
    deep = '{"instances": ' + "[" * 10_000 + "]" * 10_000 + "}"
    status, answer = loose_rest("POST", "/v1/models/loose:predict", deep)
    assert (status, answer) == (400, {"error": "JSON Parse error: nested too deeply"})


def test_status_lists_versions_newest_first(tiny: Stub) -> None:
    statuses = tiny.status().model_version_status
    assert [(status.version, status.state) for status in statuses] == [(2, 30), (1, 30)]
    assert all(status.status.error_code == 0 for status in statuses)


def test_status_is_of_one_version_or_of_all(tiny: Stub) -> None:
    assert [s.version for s in tiny.status(spec(version=1)).model_version_status] == [1]
    for label in ("stable", "none"):  # labels are ignored here
        versions = [s.version for s in tiny.status(spec(label=label)).model_version_status]
        assert versions == [2, 1]


def test_status_of_what_is_not_there(tiny: Stub) -> None:
    for chosen, text in (
        (spec("none"), "Could not find any versions of model none"),
        (spec(""), "Could not find any versions of model "),
        (spec(version=7), "Could not find version 7 of model tiny"),
    ):
        assert code_and_text(partial(tiny.status, chosen)) == (NOT_FOUND, text)
    code, text = code_and_text(
        lambda: tiny.call(MODEL + "GetModelStatus", GetModelStatusRequest(), PredictResponse)
    )
    assert (code, text) == (INVALID, "Missing ModelSpec")


def test_metadata_holds_every_signature(tiny: Stub) -> None:
    response = tiny.metadata(spec(version=1), "signature_def")
    assert response.model_spec.version.value == 1
    packed = response.metadata["signature_def"]
    assert packed.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    signatures = SignatureDefMap.FromString(packed.value).signature_def
    assert set(signatures) == {"serving_default", "manifest", "__saved_model_init_op"}
    assert [d.size for d in signatures["serving_default"].outputs["features"].tensor_shape.dim] == [
        -1,
        8,
    ]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ((), "GetModelMetadataRequest must specify at least one metadata_field"),
        (("graph",), "Metadata field graph is not supported"),
    ],
)
def test_metadata_is_only_signature_def(tiny: Stub, fields: tuple[str, ...], text: str) -> None:
    assert code_and_text(lambda: tiny.metadata(spec(), *fields)) == (INVALID, text)


def test_a_reload_without_a_model_list_is_refused(tiny: Stub) -> None:
    code, text = code_and_text(
        lambda: tiny.call(MODEL + "HandleReloadConfigRequest", b"", ReloadConfigResponse)
    )
    assert code is INVALID
    assert "Only ModelConfigList is currently supported" in text


def test_a_reload_says_by_how_much_metrics_grew(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    metrics = Metrics()

    def load(name: str, version: int, path: Path) -> Runner:
        metrics.observe_load(model=name, version=version, path=str(path), ok=True, seconds=1.0)
        return direct(FakeEngine())

    attempts = "/tensorflow/cc/saved_model/load_attempt_count"
    names = [attempts, attempts.replace("/", ":"), "/unknown", ":tensorflow:serving:request_count"]
    with served(config(model("m", tmp_path)), load=load) as stub:
        stub.api.metrics = metrics
        request = ReloadConfigRequest(metric_names=names)
        request.config.CopyFrom(config(model("m", tmp_path), model("n", tmp_path)))
        path = MODEL + "HandleReloadConfigRequest"
        answer = stub.call(path, request, ReloadConfigResponse)
        found = {metric.name: metric.int64_value_increase for metric in answer.metric}
        assert found == dict(zip(names, (1, 1, 0, 0), strict=True))
        answer = stub.call(path, request, ReloadConfigResponse)
        assert [metric.int64_value_increase for metric in answer.metric] == [0] * 4


def test_the_init_op_of_tensorflow_2_is_not_served(tmp_path: Path) -> None:
    module = tf.Module()
    module.double = tf.function(lambda x: {"y": 2 * x}, [tf.TensorSpec(None, tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=module.double)
    init = "__saved_model_init_op"
    with served(config(model("m", tmp_path))) as stub:
        packed = stub.metadata(spec("m"), "signature_def").metadata["signature_def"]
        assert init in SignatureDefMap.FromString(packed.value).signature_def
        request = predict_request(spec("m", signature=init))
        code, _ = code_and_text(lambda: stub.predict(request))
        assert code in (INVALID, NOT_FOUND, grpc.StatusCode.OUT_OF_RANGE)  # the session decides
        request = predict_request(spec("m"), x=np.ones(1, np.float32))
        assert stub.predict(request).outputs["y"].float_val == [2]


def test_an_unknown_method_is_unimplemented(tiny: Stub) -> None:
    code, _ = code_and_text(
        lambda: tiny.call(PREDICTION + "SessionRun", PredictRequest(), PredictResponse)
    )
    assert code is grpc.StatusCode.UNIMPLEMENTED


def test_an_expired_deadline_is_answered_as_such(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    engine = FakeEngine()
    engine.gate.clear()
    request = predict_request(spec("m"), x=np.ones((1, 1), np.float32))
    with served(config(model("m", tmp_path)), load=lambda *_: direct(engine)) as stub:
        code, _ = code_and_text(lambda: stub.predict(request, timeout=0.1))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        engine.gate.set()
        assert stub.predict(request).outputs["y"].float_val == [2]


@pytest.mark.parametrize("failure", [ValueError("a bug"), TypeError("a bug"), KeyError("a bug")])
def test_a_bug_is_internal_and_not_the_requests_fault(tmp_path: Path, failure) -> None:
    (tmp_path / "1").mkdir()
    engine = FakeEngine()
    engine.failure = failure
    request = predict_request(spec("m"), x=np.ones((1, 1), np.float32))
    with served(config(model("m", tmp_path)), load=lambda *_: direct(engine)) as stub:
        code, text = code_and_text(lambda: stub.predict(request))
        assert code is grpc.StatusCode.INTERNAL
        assert "a bug" in text
        engine.failure = None
        assert stub.predict(request).outputs["y"].float_val == [2]


def test_method_names_are_checked_when_asked_for() -> None:
    signatures = FakeEngine().signatures
    request = predict_request(spec("m"), x=np.ones((1, 1), np.float32))
    assert predict.plan(signatures, request).examples == 1
    with pytest.raises(ServingError, match="signature method_name to be one of"):
        predict.plan(signatures, request, check_method=True)
    signatures["serving_default"].method_name = "tensorflow/serving/predict"
    assert predict.plan(signatures, request, check_method=True).examples == 1
