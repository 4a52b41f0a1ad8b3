"""What clients of TensorFlow Serving see over gRPC: answers, codes and texts."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np
import pytest

from featurewire._tfs.get_model_metadata_pb2 import SignatureDefMap
from featurewire._tfs.get_model_status_pb2 import GetModelStatusRequest
from featurewire._tfs.model_management_pb2 import ReloadConfigResponse
from featurewire._tfs.predict_pb2 import PredictRequest, PredictResponse
from featurewire_server import predict, tensors
from featurewire_server.errors import ServingError
from featurewire_server.loading import DirectRunner
from tests.server.support import (
    JPEG,
    MODEL,
    PREDICTION,
    FakeEngine,
    Stub,
    code_and_text,
    config,
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


def test_floats_come_in_tensor_content_when_asked_for(tiny_model: Path) -> None:
    with served(config(model("tiny", tiny_model)), tensor_content=True) as stub:
        features = stub.predict(predict_request(image_bytes=[JPEG])).outputs["features"]
        assert not features.float_val
        np.testing.assert_array_equal(
            np.frombuffer(features.tensor_content, np.float32), expected_vector(JPEG, version=2)
        )


def test_a_version_and_a_label_choose(tiny: Stub) -> None:
    for chosen in (spec(version=1), spec(label="stable")):
        np.testing.assert_array_equal(tiny.embed(chosen)[0], expected_vector(JPEG, version=1))


def test_the_output_filter_chooses(tiny: Stub) -> None:
    request = predict_request(image_bytes=[JPEG])
    request.output_filter.extend(["status", "status"])
    assert set(tiny.predict(request).outputs) == {"status"}


def test_another_signature_answers_under_its_name(tiny: Stub) -> None:
    response = tiny.predict(predict_request(spec(signature="manifest"), request=[b"", b""]))
    assert response.model_spec.signature_name == "manifest"
    assert len(response.outputs["manifest"].string_val) == 2


def no_spec() -> PredictRequest:
    request = predict_request(image_bytes=[JPEG])
    request.ClearField("model_spec")
    return request


def filtered(name: str) -> PredictRequest:
    request = predict_request(image_bytes=[JPEG])
    request.output_filter.append(name)
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
            "input tensor alias not found in signature: image. "
            "Inputs expected to be in the set {image_bytes}.",
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
            "Expects arg image_bytes to be string but float is provided",
        ),
    ],
)
def test_wrong_requests_get_the_code_and_text_of_tensorflow_serving(
    tiny: Stub, request_: PredictRequest, code: grpc.StatusCode, text: str
) -> None:
    assert code_and_text(lambda: tiny.predict(request_)) == (code, text)


def test_a_wrong_rank_is_named(tiny: Stub) -> None:
    request = predict_request()
    request.inputs["image_bytes"].CopyFrom(tensors.encode(np.array([[JPEG]], dtype=object)))
    code, text = code_and_text(lambda: tiny.predict(request))
    assert code is INVALID
    assert text == "input image_bytes has the shape [1, 1], the signature has [?]"


def test_status_lists_versions_newest_first(tiny: Stub) -> None:
    statuses = tiny.status().model_version_status
    assert [(status.version, status.state) for status in statuses] == [(2, 30), (1, 30)]
    assert all(status.status.error_code == 0 for status in statuses)


def test_status_of_one_version_or_label(tiny: Stub) -> None:
    for chosen in (spec(version=1), spec(label="stable")):
        assert [s.version for s in tiny.status(chosen).model_version_status] == [1]


def test_status_of_what_is_not_there(tiny: Stub) -> None:
    for chosen, text in (
        (spec("none"), "Could not find any versions of model none"),
        (spec(version=7), "Could not find version 7 of model tiny"),
    ):
        assert code_and_text(lambda chosen=chosen: tiny.status(chosen)) == (NOT_FOUND, text)
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
    assert set(signatures) == {"serving_default", "manifest"}
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
    with served(config(model("m", tmp_path)), load=lambda *_: DirectRunner(engine)) as stub:
        code, _ = code_and_text(lambda: stub.predict(request, timeout=0.1))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        engine.gate.set()
        assert stub.predict(request).outputs["y"].float_val == [2]


def test_method_names_are_checked_when_asked_for() -> None:
    engine = FakeEngine()
    request = predict_request(spec("m"), x=np.ones((1, 1), np.float32))
    assert predict.run(DirectRunner(engine), request)[1]["y"].item() == 2
    with pytest.raises(ServingError, match="signature method_name to be one of"):
        predict.run(DirectRunner(engine), request, check_method=True)
    engine.signatures["serving_default"].method_name = "tensorflow/serving/predict"
    assert predict.run(DirectRunner(engine), request, check_method=True)[1]["y"].item() == 2
