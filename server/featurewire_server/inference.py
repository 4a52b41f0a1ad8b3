"""Classify, Regress and MultiInference: tf.Examples through signatures made for them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from featurewire._tfs import types_pb2
from featurewire._tfs.meta_graph_pb2 import SignatureDef

from . import predict
from ._tfs.classification_pb2 import ClassificationRequest, ClassificationResult
from ._tfs.inference_pb2 import InferenceResult, MultiInferenceRequest
from ._tfs.input_pb2 import Input
from ._tfs.regression_pb2 import RegressionRequest, RegressionResult
from .cancellation import Cancellation
from .errors import ServingError, failed_precondition, invalid_argument, unimplemented
from .servable import Runner

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
EXAMPLES = "inputs"  # the input alias of both kinds of signature
CLASSES = "classes"
SCORES = "scores"
OUTPUTS = "outputs"


def classify(
    runner: Runner,
    request: ClassificationRequest,
    *,
    deadline: float | None = None,
    cancelled: Cancellation | None = None,
) -> tuple[str, ClassificationResult, int]:
    """(signature name, result, examples); raises UNIMPLEMENTED where no signature classifies."""
    name, signature = _signature(runner, request.model_spec.signature_name, CLASSIFY, "Classify")
    wanted = [alias for alias in (CLASSES, SCORES) if alias in signature.outputs]
    if not wanted:
        raise failed_precondition(
            f"Expected classification signature outputs to contain {CLASSES} or {SCORES}"
        )
    examples = serialized(request.input)
    values = _run(runner, name, signature, examples, wanted, deadline, cancelled)
    return name, classifications(values, len(examples)), len(examples)


def regress(
    runner: Runner,
    request: RegressionRequest,
    *,
    deadline: float | None = None,
    cancelled: Cancellation | None = None,
) -> tuple[str, RegressionResult, int]:
    """(signature name, result, examples); raises UNIMPLEMENTED where no signature regresses."""
    name, signature = _signature(runner, request.model_spec.signature_name, REGRESS, "Regress")
    if OUTPUTS not in signature.outputs:
        raise failed_precondition(f"Expected regression signature outputs to contain {OUTPUTS}")
    examples = serialized(request.input)
    values = _run(runner, name, signature, examples, [OUTPUTS], deadline, cancelled)
    return name, regressions(values[OUTPUTS], len(examples)), len(examples)


def multi_inference(
    runner: Runner,
    request: MultiInferenceRequest,
    *,
    deadline: float | None = None,
    cancelled: Cancellation | None = None,
) -> tuple[list[InferenceResult], int]:
    """(a result for each task, examples); one name and one version serve all tasks."""
    if not request.tasks:
        raise invalid_argument("Inference request must contain at least one task")
    results = []
    count = 0
    for task in request.tasks:
        if task.model_spec.name != request.tasks[0].model_spec.name:
            raise invalid_argument(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        result = InferenceResult()
        options = {"deadline": deadline, "cancelled": cancelled}
        if task.method_name == CLASSIFY:
            single = ClassificationRequest(model_spec=task.model_spec, input=request.input)
            name, classes, count = classify(runner, single, **options)
            result.classification_result.CopyFrom(classes)
        elif task.method_name == REGRESS:
            single = RegressionRequest(model_spec=task.model_spec, input=request.input)
            name, values, count = regress(runner, single, **options)
            result.regression_result.CopyFrom(values)
        else:
            raise unimplemented(f"Unsupported signature method_name: {task.method_name}")
        result.model_spec.name = task.model_spec.name
        result.model_spec.signature_name = name
        results.append(result)
    return results, count


def _signature(runner: Runner, name: str, method: str, api: str) -> tuple[str, SignatureDef]:
    name, signature = predict.signature_of(runner.signatures, name)
    # TF2 SavedModels carry the Predict method name on signatures that are meant for others.
    shaped = EXAMPLES in signature.inputs and len(signature.inputs) == 1
    if signature.method_name != method and not (
        shaped and signature.inputs[EXAMPLES].dtype == types_pb2.DT_STRING
    ):
        raise unimplemented(
            f'{api} needs a signature of the method {method} or with one input "{EXAMPLES}" of '
            f'serialized tf.Examples; "{name}" has neither: use Predict'
        )
    if not shaped:
        raise failed_precondition(
            f'Expected the signature "{name}" to have the one input "{EXAMPLES}"'
        )
    return name, signature


def serialized(source: Input) -> np.ndarray:
    """The examples of a request, each with the context merged in, as serialized strings [N]."""
    kind = source.WhichOneof("kind")
    if kind == "example_list":
        examples = [example.SerializeToString() for example in source.example_list.examples]
    elif kind == "example_list_with_context":
        both = source.example_list_with_context
        context = both.context.SerializeToString()
        # Serialized messages concatenate to their merger; the example's features come last and win.
        examples = [context + example.SerializeToString() for example in both.examples]
    else:
        examples = []
    if not examples:
        raise invalid_argument("Input is empty.")
    array = np.empty(len(examples), dtype=object)
    array[:] = examples
    return array


def _run(
    runner: Runner,
    name: str,
    signature: SignatureDef,
    examples: np.ndarray,
    outputs: list[str],
    deadline: float | None,
    cancelled: Cancellation | None,
) -> Mapping[str, np.ndarray]:
    inputs = {
        EXAMPLES: predict.checked(
            EXAMPLES, examples, types_pb2.DT_STRING, signature.inputs[EXAMPLES]
        )
    }
    return runner.run(name, inputs, outputs, deadline=deadline, cancelled=cancelled)


def classifications(values: Mapping[str, np.ndarray], count: int) -> ClassificationResult:
    """`classes` (strings) and `scores` (floats), each [N, classes] or absent, as a result."""
    classes, scores = values.get(CLASSES), values.get(SCORES)
    for alias, array in values.items():
        if array.ndim != 2 or array.shape[0] != count:
            raise _misshapen(alias, array, f"[{count}, number of classes]")
    if classes is not None and scores is not None and classes.shape != scores.shape:
        raise failed_precondition(
            f"{CLASSES} has the shape {list(classes.shape)}, {SCORES} {list(scores.shape)}"
        )
    result = ClassificationResult()
    for row in range(count):
        found = result.classifications.add()
        for column in range((classes if classes is not None else scores).shape[1]):
            one = found.classes.add()
            if classes is not None:
                one.label = _text(classes[row, column])
            if scores is not None:
                one.score = float(scores[row, column])
    return result


def regressions(values: np.ndarray, count: int) -> RegressionResult:
    """`outputs` [N] or [N, 1] as a result."""
    if values.shape not in ((count,), (count, 1)):
        raise _misshapen(OUTPUTS, values, f"[{count}] or [{count}, 1]")
    result = RegressionResult()
    for value in values.ravel().tolist():
        result.regressions.add(value=value)
    return result


def _text(label: object) -> str:
    return label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label)


def _misshapen(alias: str, array: np.ndarray, wanted: str) -> ServingError:
    return failed_precondition(
        f"Expected output {alias} to have the shape {wanted}; got {list(array.shape)}"
    )
