"""Classify, Regress and MultiInference: requests that hold tf.Examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurewire._tfs import types_pb2
from featurewire._tfs.meta_graph_pb2 import SignatureDef
from featurewire._tfs.model_pb2 import ModelSpec
from featurewire_server._tfs.classification_pb2 import ClassificationRequest, ClassificationResult
from featurewire_server._tfs.inference_pb2 import (
    InferenceResult,
    InferenceTask,
    MultiInferenceRequest,
)
from featurewire_server._tfs.input_pb2 import Input
from featurewire_server._tfs.regression_pb2 import RegressionRequest, RegressionResult
from featurewire_server.common.errors import (
    invalid_argument,
    unimplemented,
)
from featurewire_server.messages import predict, tensors
from featurewire_server.messages.predict import Run

EXAMPLES = "inputs"
"""The input alias of both kinds of signature."""
CLASSES = "classes"
SCORES = "scores"
OUTPUTS = "outputs"
UNKNOWN = "No signature was found with the name: "

Signatures = Mapping[str, SignatureDef]
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Method:
    """The differences between Classify and Regress."""

    kind: str
    """Name in error texts."""
    name: str
    """Method name of the signatures for this method."""
    outputs: Callable[[SignatureDef], list[str]]
    """Returns the aliases to fetch; raises INVALID_ARGUMENT if the signature lacks them."""
    result: Callable[[Arrays, int], Any]
    """Makes the result message from the fetched arrays and the number of examples."""

    def wanted(self, signature: SignatureDef, check_method: bool) -> list[str]:
        """The outputs to fetch from a signature. Raises INVALID_ARGUMENT if it does not fit."""
        # TF2 SavedModels put the Predict method name on all signatures, so checking is optional.
        if check_method and signature.method_name != self.name:
            raise invalid_argument(
                f"Expected {self.kind} signature method_name to be {self.name}. "
                f"Was: {signature.method_name}"
            )
        if len(signature.inputs) != 1:
            raise invalid_argument("Expected one input Tensor.")
        if EXAMPLES not in signature.inputs:
            raise invalid_argument(
                f"No {self.kind} inputs found in SignatureDef: {_shown(signature)}"
            )
        return self.outputs(signature)


def plan(
    signatures: Signatures,
    method: Method,
    request: ClassificationRequest | RegressionRequest,
    *,
    check_method: bool = False,
) -> Run:
    """The run whose outputs `method.result` takes. Raises ServingError."""
    name, signature = _signature(signatures, request.model_spec, UNKNOWN)
    outputs = method.wanted(signature, check_method)
    return _plan(name, signature, outputs, serialized(request.input))


def plan_multi_inference(
    signatures: Signatures, request: MultiInferenceRequest, *, check_method: bool = False
) -> list[Run]:
    """One run per task, whose outputs `result_of` takes. Raises ServingError if any task is bad."""
    planned: dict[str, tuple[SignatureDef, list[str]]] = {}
    for task in request.tasks:
        if not task.model_spec.name:
            raise invalid_argument("Found ModelSpec with an empty model name.")
        if task.model_spec.name != request.tasks[0].model_spec.name:
            raise invalid_argument(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        name = task.model_spec.signature_name or predict.DEFAULT_SIGNATURE
        if name in planned:
            raise invalid_argument(f"Duplicate evaluation of signature: {name}")
        unknown = "Requested signature not found in model graph: "
        _, signature = _signature(signatures, task.model_spec, unknown)
        if task.method_name not in METHODS:
            raise unimplemented(f"Unsupported signature method_name: {task.method_name}")
        planned[name] = signature, METHODS[task.method_name].wanted(signature, check_method)
    examples = serialized(request.input)
    return [_plan(name, *of, examples) for name, of in planned.items()]


def result_of(task: InferenceTask, run: Run, values: Arrays, version: int) -> InferenceResult:
    """The result of one task of a MultiInference request."""
    made = METHODS[task.method_name].result(values, run.examples)
    result = InferenceResult()
    if task.method_name == CLASSIFY.name:
        result.classification_result.CopyFrom(made)
    else:
        result.regression_result.CopyFrom(made)
    result.model_spec.name = task.model_spec.name
    result.model_spec.signature_name = run.signature_name
    result.model_spec.version.value = version
    return result


def _signature(signatures: Signatures, spec: ModelSpec, unknown: str) -> tuple[str, SignatureDef]:
    name = spec.signature_name or predict.DEFAULT_SIGNATURE
    if name not in signatures:
        raise invalid_argument(f"{unknown}{name}")
    return name, signatures[name]


def _classes_and_scores(signature: SignatureDef) -> list[str]:
    if len(signature.outputs) not in (1, 2):
        raise invalid_argument(
            f"Expected one or two output Tensors, found {len(signature.outputs)}"
        )
    wanted = [alias for alias in (CLASSES, SCORES) if alias in signature.outputs]
    if not wanted:
        raise invalid_argument(
            "Expected classification signature outputs to contain at least one of "
            f'"{CLASSES}" or "{SCORES}". Signature was: {_shown(signature)}'
        )
    return wanted


def _regression_outputs(signature: SignatureDef) -> list[str]:
    if len(signature.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    if OUTPUTS not in signature.outputs:
        raise invalid_argument(f"No regression outputs found in SignatureDef: {_shown(signature)}")
    return [OUTPUTS]


def _shown(signature: SignatureDef) -> str:
    return " ".join(str(signature).split())


def serialized(source: Input) -> np.ndarray:
    """The examples of a request as serialized strings [N], each merged with the context."""
    kind = source.WhichOneof("kind")
    if kind == "example_list":
        examples = [example.SerializeToString() for example in source.example_list.examples]
    elif kind == "example_list_with_context":
        both = source.example_list_with_context
        context = both.context.SerializeToString()
        # Concatenating serialized messages merges them. The example's features come last and win.
        examples = [context + example.SerializeToString() for example in both.examples]
    else:
        examples = []
    if not examples:
        raise invalid_argument("Input is empty.")
    array = np.empty(len(examples), dtype=object)
    array[:] = examples
    return array


def _plan(name: str, signature: SignatureDef, outputs: list[str], examples: np.ndarray) -> Run:
    inputs = predict.fed({EXAMPLES: (examples, types_pb2.DT_STRING)}, signature)
    return Run(signature_name=name, inputs=inputs, outputs=outputs, examples=len(examples))


def classifications(values: Arrays, count: int) -> ClassificationResult:
    """A result from `classes` (strings) and `scores` (floats), each [N, classes] or absent.

    Raises INVALID_ARGUMENT with TensorFlow Serving's text for any other outputs.
    """
    classes, scores = values.get(CLASSES), values.get(SCORES)
    for alias, array, wanted in ((CLASSES, classes, "DT_STRING"), (SCORES, scores, "DT_FLOAT")):
        if array is None:
            continue
        if array.ndim != 2:
            raise invalid_argument(
                f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)}"
            )
        if tensors.dtype_name(array) != wanted:
            raise invalid_argument(
                f"Expected {alias} Tensor of {wanted}. Got: {tensors.dtype_name(array)}"
            )
        if array.shape[0] != count:
            raise invalid_argument(
                f"Expected {alias} output batch size of {count}. Got: {array.shape[0]}"
            )
    if classes is not None and scores is not None and classes.shape != scores.shape:
        raise invalid_argument(
            "Tensors class and score should match in dim_size(1). "
            f"Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    columns = next(iter(values.values())).shape[1]
    result = ClassificationResult()
    for row in range(count):
        found = result.classifications.add()
        for column in range(columns):
            one = found.classes.add()
            if classes is not None:
                one.label = _text(classes[row, column])
            if scores is not None:
                one.score = float(scores[row, column])
    return result


def regressions(values: np.ndarray, count: int) -> RegressionResult:
    """A result from `outputs` (floats), [N] or [N, 1]. Raises INVALID_ARGUMENT for others."""
    if values.ndim not in (1, 2) or values.shape[1:] not in ((), (1,)):
        raise invalid_argument(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] "
            f"but got {_shape(values)}"
        )
    if values.shape[0] != count:
        raise invalid_argument(
            f"Input batch size did not match output batch size: {count} vs. {values.shape[0]}"
        )
    if tensors.dtype_name(values) != "DT_FLOAT":
        raise invalid_argument(
            f"Expected output Tensor of DT_FLOAT.  Got: {tensors.dtype_name(values)}"
        )
    result = RegressionResult()
    for value in values.ravel().tolist():
        result.regressions.add(value=value)
    return result


def _text(label: object) -> str:
    return label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label)


def _shape(array: np.ndarray) -> str:
    return f"[{','.join(map(str, array.shape))}]"


CLASSIFY = Method(
    "classification", "tensorflow/serving/classify", _classes_and_scores, classifications
)
REGRESS = Method(
    "regression",
    "tensorflow/serving/regress",
    _regression_outputs,
    lambda values, count: regressions(values[OUTPUTS], count),
)
METHODS = {method.name: method for method in (CLASSIFY, REGRESS)}
