"""Plans a Predict request: its tensors, checked against a signature."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from featurewire._tfs.meta_graph_pb2 import SignatureDef
from featurewire._tfs.predict_pb2 import PredictRequest
from featurewire._tfs.tensor_pb2 import TensorProto
from featurewire_server.common.errors import failed_precondition, internal, invalid_argument
from featurewire_server.messages import tensors

Sent = TypeVar("Sent")

DEFAULT_SIGNATURE = "serving_default"
METHODS = tuple(f"tensorflow/serving/{method}" for method in ("predict", "classify", "regress"))
"""Method names that a signature may have for Predict if method names are checked."""


def signature_of(signatures: Mapping[str, SignatureDef], name: str) -> tuple[str, SignatureDef]:
    """The effective name and the signature. Raises FAILED_PRECONDITION for an unknown name."""
    name = name or DEFAULT_SIGNATURE
    if name not in signatures:
        raise failed_precondition(f'Serving signature key "{name}" not found.')
    return name, signatures[name]


def outputs_of(signature: SignatureDef, output_filter: Sequence[str]) -> list[str]:
    """The output aliases to fetch: those in the filter, or all if it is empty.

    Raises INVALID_ARGUMENT for unknown and repeated aliases.
    """
    for at, alias in enumerate(output_filter):
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {_set(signature.outputs)}."
            )
        if alias in output_filter[:at]:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
    return list(output_filter) or sorted(signature.outputs)


def inputs_of(
    signature: SignatureDef,
    sent: Mapping[str, Sent],
    decode: Callable[[str, Sent], tuple[np.ndarray, int]],
) -> dict[str, np.ndarray]:
    """The arrays of the tensors `sent`, checked against the signature and with its defaults."""
    _check_names(sent.keys(), signature)
    found = {alias: decode(alias, tensor) for alias, tensor in sent.items()}
    for alias, default in signature.defaults.items():
        if alias not in found:
            found[alias] = _decode(alias, default)
    return fed(found, signature)


def _decode(alias: str, proto: TensorProto) -> tuple[np.ndarray, int]:
    return tensors.decode(alias, proto), proto.dtype


def _check_names(sent: Collection[str], signature: SignatureDef) -> None:
    wanted, defaults = set(signature.inputs), set(signature.defaults)
    if len(sent) > len(wanted) or (len(sent) < len(wanted) and not defaults):
        raise invalid_argument(
            f"input size does not match signature: {len(sent)}!={len(wanted)} "
            f"len({_set(sent)}) != len({_set(wanted)}). "
            f"Sent extra: {_set(set(sent) - wanted)}. "
            f"Missing but required: {_set(wanted - set(sent))}."
        )
    for alias in sorted(wanted - set(sent) - defaults):
        raise invalid_argument(
            f"Signature input alias: {alias}(feed name: {signature.inputs[alias].name}) not found "
            "in request and no default value provided. Inputs expected to be in the request "
            f"{_set(sent)}, or default input alias set: {','.join(sorted(defaults))}"
        )
    if not wanted.issuperset(sent):
        raise invalid_argument(
            "Inputs contains invalid name. Used request inputs: "
            f"{','.join(sorted(wanted & set(sent)))}, request input: {','.join(sorted(sent))}"
        )


def fed(
    tensors_: Mapping[str, tuple[np.ndarray, int]], signature: SignatureDef
) -> dict[str, np.ndarray]:
    """The arrays by alias, after checking that each dtype is the signature's.

    The session checks the shapes, as in TensorFlow Serving, because a signature may be stricter
    than the graph. Error texts number the inputs by tensor name, as a session does.
    """
    names = {alias: signature.inputs[alias].name for alias in tensors_}
    for index, alias in enumerate(sorted(tensors_, key=lambda alias: names[alias])):
        wanted, dtype = tensors.base_type(signature.inputs[alias].dtype), tensors_[alias][1]
        if dtype != wanted:
            raise invalid_argument(
                f"Expects arg[{index}] to be {tensors.type_name(wanted)} "
                f"but {tensors.type_name(dtype)} is provided"
            )
    return {alias: array for alias, (array, _) in tensors_.items()}


def _set(names: Collection[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


@dataclass(frozen=True, kw_only=True)
class Run:
    """The part of a request that an engine needs: signature, inputs and outputs."""

    signature_name: str
    inputs: Mapping[str, np.ndarray]
    outputs: Sequence[str]
    examples: int
    answer_bytes: int = 0
    """Estimated size of the outputs in bytes, as far as the signature gives shapes."""


def plan(
    signatures: Mapping[str, SignatureDef], request: PredictRequest, *, check_method: bool = False
) -> Run:
    """The Run for `request`, checked against the signatures. Raises ServingError."""
    return plan_tensors(
        signatures,
        request.model_spec.signature_name,
        request.inputs,
        request.output_filter,
        _decode,
        check_method=check_method,
    )


def plan_tensors(
    signatures: Mapping[str, SignatureDef],
    signature_name: str,
    sent: Mapping[str, Sent],
    output_filter: Sequence[str],
    decode: Callable[[str, Sent], tuple[np.ndarray, int]],
    *,
    check_method: bool,
) -> Run:
    """Like `plan`, for any protocol: `decode` returns the array and DataType of one tensor."""
    name, signature = signature_of(signatures, signature_name)
    if check_method and signature.method_name not in METHODS:
        raise internal(  # TensorFlow Serving's code, because the model is at fault
            "Expected prediction signature method_name to be one of "
            f"{{{', '.join(METHODS)}}}. Was: {signature.method_name}"
        )
    inputs = inputs_of(signature, sent, decode)
    outputs = outputs_of(signature, output_filter)
    examples = example_count(inputs)
    return Run(
        signature_name=name,
        inputs=inputs,
        outputs=outputs,
        examples=examples,
        answer_bytes=output_bytes(signature, outputs, examples),
    )


def output_bytes(signature: SignatureDef, outputs: Sequence[str], rows: int) -> int:
    """Estimated bytes of `outputs` for `rows` rows; outputs of unknown size count as 0."""
    total = 0
    for alias in outputs:
        info = signature.outputs[alias]
        kind = tensors.BY_NUMBER.get(info.dtype)
        batch, *sizes = [dim.size for dim in info.tensor_shape.dim] or [-1, -1]
        if kind is not None and min(sizes, default=1) >= 0:
            total += (rows if batch < 0 else batch) * math.prod(sizes) * kind.dtype.itemsize
    return total


def example_count(inputs: Mapping[str, np.ndarray]) -> int:
    """Number of examples in a request: dimension 0 of its first input, 1 for a scalar."""
    first = next(iter(inputs.values()), None)
    return int(first.shape[0]) if first is not None and first.ndim else 1
