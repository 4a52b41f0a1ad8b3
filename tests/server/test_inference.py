"""Classify, Regress and MultiInference, for SavedModels with such signatures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf

from featurewire_server._tfs.classification_pb2 import (
    ClassificationRequest,
    ClassificationResponse,
)
from featurewire_server._tfs.inference_pb2 import MultiInferenceRequest, MultiInferenceResponse
from featurewire_server._tfs.input_pb2 import Input
from featurewire_server._tfs.regression_pb2 import RegressionRequest, RegressionResponse
from featurewire_server.common.errors import ServingError
from featurewire_server.messages.inference import classifications, regressions
from tests.server.support import JPEG, PREDICTION, Stub, code_and_text, config, model, served, spec

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


@pytest.fixture(scope="module")
def stub(tmp_path_factory, tiny_model: Path) -> Iterator[Stub]:
    """Half plus two: `regress` returns x / 2 + 2, and `classify` two classes with this score."""
    base = tmp_path_factory.mktemp("half")
    write_half_plus_two(base / "1")
    with served(config(model("half", base), model("tiny", tiny_model))) as made:
        yield made


def write_half_plus_two(path: Path) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:

        def half_plus_two(name: str):
            serialized = v1.placeholder(tf.string, [None], name)
            parsed = tf.io.parse_example(serialized, {"x": tf.io.FixedLenFeature([1], tf.float32)})
            return serialized, parsed["x"] / 2 + 2

        serialized, y = half_plus_two("serialized")
        # As in a SavedModel of TensorFlow 2, where no two signatures share an input.
        classified, z = half_plus_two("classified")
        classes = tf.tile(tf.constant([["low", "high"]]), [tf.shape(z)[0], 1])
        scores = tf.concat([z, -z], axis=1)
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map={
                "serving_default": v1.saved_model.regression_signature_def(serialized, y),
                "regress": v1.saved_model.regression_signature_def(serialized, y),
                "classify": v1.saved_model.classification_signature_def(
                    classified, classes, scores
                ),
            },
        )
        builder.save()


def examples(*values: float) -> Input:
    made = Input()
    for value in values:
        feature = made.example_list.examples.add().features.feature["x"]
        feature.float_list.value.append(value)
    return made


def test_regress(stub: Stub) -> None:
    request = RegressionRequest(model_spec=spec("half"), input=examples(2, 4))
    response = stub.call(PREDICTION + "Regress", request, RegressionResponse)
    assert [one.value for one in response.result.regressions] == [3, 4]
    assert response.model_spec.version.value == 1
    assert response.model_spec.signature_name == "serving_default"


def test_classify(stub: Stub) -> None:
    chosen = spec("half", signature="classify")
    request = ClassificationRequest(model_spec=chosen, input=examples(2))
    response = stub.call(PREDICTION + "Classify", request, ClassificationResponse)
    (found,) = response.result.classifications
    assert [(one.label, one.score) for one in found.classes] == [("low", 3), ("high", -3)]


def test_a_context_is_merged_into_every_example(stub: Stub) -> None:
    with_context = Input()
    both = with_context.example_list_with_context
    both.context.features.feature["x"].float_list.value.append(6)
    both.examples.add()
    own = both.examples.add()
    own.features.feature["x"].float_list.value.append(2)
    request = RegressionRequest(model_spec=spec("half"), input=with_context)
    response = stub.call(PREDICTION + "Regress", request, RegressionResponse)
    assert [one.value for one in response.result.regressions] == [5, 3]


def test_multi_inference_answers_each_task(stub: Stub) -> None:
    request = MultiInferenceRequest(input=examples(2))
    for signature, method in (("classify", CLASSIFY), ("regress", REGRESS)):
        request.tasks.add(model_spec=spec("half", signature=signature), method_name=method)
    response = stub.call(PREDICTION + "MultiInference", request, MultiInferenceResponse)
    first, second = response.results
    assert first.classification_result.classifications[0].classes[0].score == 3
    assert second.regression_result.regressions[0].value == 3
    assert [result.model_spec.version.value for result in response.results] == [1, 1]
    assert [result.model_spec.signature_name for result in response.results] == [
        "classify",
        "regress",
    ]


@pytest.mark.parametrize("method", ["Classify", "Regress"])
@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        (spec("half", signature="none"), "No signature was found with the name: none"),
        (spec("tiny"), "inputs found in SignatureDef: "),
    ],
)
def test_signatures_that_do_not_fit_are_invalid(stub: Stub, method, chosen, text) -> None:
    kinds = {
        "Classify": (ClassificationRequest, ClassificationResponse),
        "Regress": (RegressionRequest, RegressionResponse),
    }
    request, response = kinds[method]
    made = request(model_spec=chosen, input=examples(1))
    code, found = code_and_text(lambda: stub.call(PREDICTION + method, made, response))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text in found


def test_outputs_of_another_kind_are_invalid(stub: Stub) -> None:
    chosen = spec("half", signature="classify")
    code, found = code_and_text(
        lambda: stub.call(
            PREDICTION + "Regress",
            RegressionRequest(model_spec=chosen, input=examples(1)),
            RegressionResponse,
        )
    )
    assert (code, found) == (grpc.StatusCode.INVALID_ARGUMENT, "Expected one output Tensor.")


def test_method_names_are_checked_when_asked_for(tmp_path: Path) -> None:
    write_half_plus_two(tmp_path / "1")
    with served(config(model("half", tmp_path)), check_method_names=True) as stub:
        request = ClassificationRequest(model_spec=spec("half"), input=examples(1))
        code, found = code_and_text(
            lambda: stub.call(PREDICTION + "Classify", request, ClassificationResponse)
        )
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert found == (
            f"Expected classification signature method_name to be {CLASSIFY}. Was: {REGRESS}"
        )
        request.model_spec.signature_name = "classify"
        assert stub.call(PREDICTION + "Classify", request, ClassificationResponse).result


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (RegressionRequest(input=examples(1)), "Missing ModelSpec"),
        (RegressionRequest(model_spec=spec("half")), "Input is empty."),
    ],
)
def test_wrong_requests_are_invalid(stub: Stub, request_, text: str) -> None:
    code, found = code_and_text(
        lambda: stub.call(PREDICTION + "Regress", request_, RegressionResponse)
    )
    assert (code, found) == (grpc.StatusCode.INVALID_ARGUMENT, text)


def test_wrong_multi_inference_requests_are_refused(stub: Stub) -> None:
    def refusal(request: MultiInferenceRequest) -> tuple[grpc.StatusCode, str]:
        return code_and_text(
            lambda: stub.call(PREDICTION + "MultiInference", request, MultiInferenceResponse)
        )

    def code_of(request: MultiInferenceRequest) -> grpc.StatusCode:
        return refusal(request)[0]

    no_name = (grpc.StatusCode.INVALID_ARGUMENT, "ModelSpec has no name specified.")
    nameless = MultiInferenceRequest(input=examples(1))
    nameless.tasks.add(method_name=REGRESS)
    assert refusal(MultiInferenceRequest()) == refusal(nameless) == no_name
    two_models = MultiInferenceRequest(input=examples(1))
    two_models.tasks.add(model_spec=spec("half"), method_name=REGRESS)
    two_models.tasks.add(model_spec=spec("tiny"), method_name=REGRESS)
    assert code_of(two_models) is grpc.StatusCode.INVALID_ARGUMENT
    predicts = MultiInferenceRequest(input=examples(1))
    predicts.tasks.add(model_spec=spec("half"), method_name="tensorflow/serving/predict")
    assert code_of(predicts) is grpc.StatusCode.UNIMPLEMENTED
    twice = MultiInferenceRequest(input=examples(1))
    for name in ("", "serving_default"):
        twice.tasks.add(model_spec=spec("half", signature=name), method_name=REGRESS)
    assert refusal(twice) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Duplicate evaluation of signature: serving_default",
    )
    unknown = MultiInferenceRequest(input=examples(1))
    unknown.tasks.add(model_spec=spec("half", signature="none"), method_name=REGRESS)
    assert refusal(unknown) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Requested signature not found in model graph: none",
    )


def test_an_example_the_model_cannot_parse_is_the_callers_mistake(stub: Stub) -> None:
    lacking = Input()
    lacking.example_list.examples.add().features.feature["z"].bytes_list.value.append(JPEG)
    request = RegressionRequest(model_spec=spec("half"), input=lacking)
    code, text = code_and_text(
        lambda: stub.call(PREDICTION + "Regress", request, RegressionResponse)
    )
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "x" in text


STRINGS = np.full((2, 3), b"a", dtype=object)
FLOATS = np.zeros((2, 3), np.float32)
SHAPE = "Expected Tensor shape: [batch_size num_classes] but got "
REGRESSION_SHAPE = (
    "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"scores": FLOATS[0]}, SHAPE + "[3]"),
        ({"classes": STRINGS[:, :, None]}, SHAPE + "[2,3,1]"),
        ({"classes": FLOATS}, "Expected classes Tensor of DT_STRING. Got: DT_FLOAT"),
        ({"scores": STRINGS}, "Expected scores Tensor of DT_FLOAT. Got: DT_STRING"),
        (
            {"scores": FLOATS.astype(np.float64)},
            "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE",
        ),
        ({"classes": STRINGS[:1]}, "Expected classes output batch size of 2. Got: 1"),
        ({"scores": FLOATS[:1]}, "Expected scores output batch size of 2. Got: 1"),
        (
            {"classes": STRINGS, "scores": FLOATS[:, :2]},
            "Tensors class and score should match in dim_size(1). Got 3 vs. 2",
        ),
        (FLOATS, REGRESSION_SHAPE + "[2,3]"),
        (np.zeros((), np.float32), REGRESSION_SHAPE + "[]"),
        (FLOATS[:, :1, None], REGRESSION_SHAPE + "[2,1,1]"),
        (FLOATS[:1, 0], "Input batch size did not match output batch size: 2 vs. 1"),
        (
            np.zeros((2, 1), np.int64),
            "Expected output Tensor of DT_FLOAT.  Got: DT_INT64",
        ),
    ],
)
def test_outputs_of_another_type_or_shape_are_invalid(values, text: str) -> None:
    convert = classifications if isinstance(values, dict) else regressions
    with pytest.raises(ServingError) as caught:
        convert(values, 2)
    assert (caught.value.code, caught.value.message) == (grpc.StatusCode.INVALID_ARGUMENT, text)


def test_labels_or_scores_may_be_left_out() -> None:
    only_labels = classifications({"classes": STRINGS}, 2).classifications[0].classes
    assert [(one.label, one.score) for one in only_labels] == [("a", 0)] * 3
    only_scores = classifications({"scores": FLOATS}, 2).classifications[1].classes
    assert [(one.label, one.score) for one in only_scores] == [("", 0)] * 3
