"""Writes responses as JSON text, like TensorFlow Serving."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf import json_format

from featurewire._tfs import types_pb2
from featurewire._tfs.get_model_metadata_pb2 import GetModelMetadataResponse, SignatureDefMap
from featurewire._tfs.get_model_status_pb2 import GetModelStatusResponse
from featurewire._tfs.tensor_pb2 import TensorProto
from featurewire_server._tfs.classification_pb2 import ClassificationResult
from featurewire_server._tfs.regression_pb2 import RegressionResult
from featurewire_server.common.errors import internal, invalid_argument
from featurewire_server.messages import tensors

_DIGITS = {2: 5, 4: 9, 8: 17}
"""Size of a float type in bytes to the number of digits that identify each of its values."""


def predict(outputs: Mapping[str, TensorProto], *, rows: bool) -> str:
    """`{"predictions": […]}` with `rows`, else `{"outputs": …}`; a single output is unnamed."""
    if not outputs:
        raise invalid_argument("Cannot convert empty tensor map to JSON")
    arrays = {name: tensors.decode(name, proto) for name, proto in sorted(outputs.items())}
    if not rows:
        whole = {name: _whole(_texts(name, a), a.shape) for name, a in arrays.items()}
        return f'{{"outputs": {_lone_or_named(whole)}}}'
    size = _batch_size(arrays)
    columns = {}
    for name, array in arrays.items():
        columns[name] = _entries(_texts(name, array), array.shape)
    lines = (
        _lone_or_named({name: column[row] for name, column in columns.items()})
        for row in range(size)
    )
    return f'{{"predictions": [{", ".join(lines)}]}}'


def classify(result: ClassificationResult) -> str:
    if not result.classifications:
        raise invalid_argument("Cannot convert empty ClassificationResults to JSON")
    rows = []
    for classifications in result.classifications:
        scores = _decimals(np.array([c.score for c in classifications.classes], np.float32))
        labels = [json.dumps(c.label) for c in classifications.classes]
        pairs = zip(labels, scores, strict=True)
        rows.append(f"[{', '.join(f'[{label}, {score}]' for label, score in pairs)}]")
    return f'{{"results": [{", ".join(rows)}]}}'


def regress(result: RegressionResult) -> str:
    if not result.regressions:
        raise invalid_argument("Cannot convert empty RegressionResults to JSON")
    values = _decimals(np.array([r.value for r in result.regressions], np.float32))
    return f'{{"results": [{", ".join(values)}]}}'


def status(response: GetModelStatusResponse) -> str:
    return json.dumps(_dict(response), indent=1)


def metadata(response: GetModelMetadataResponse) -> str:
    signatures = SignatureDefMap()
    if not response.metadata["signature_def"].Unpack(signatures):
        raise internal("Failed to unpack 'Any' object to 'SignatureDefMap'.")
    found = _dict(signatures)
    for signature in found["signature_def"].values():
        for info in [*signature["inputs"].values(), *signature["outputs"].values()]:
            info["dtype"] = _type_name(info["dtype"])
    return json.dumps(
        {
            "model_spec": _dict(response.model_spec),
            "metadata": {"signature_def": found},
        },
        indent=1,
    )


def error(message: str) -> str:
    return json.dumps({"error": message})


def _type_name(dtype: str | int) -> str | int:
    """The name of a reference type such as `DT_FLOAT_REF`, which our protos lack.

    `MessageToDict` shows such a type as a number. Other types are returned unchanged.
    """
    if isinstance(dtype, int) and (value := tensors.base_type(dtype)) in tensors.BY_NUMBER:
        return f"{types_pb2.DataType.Name(value)}_REF"
    return dtype


def _dict(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _batch_size(arrays: Mapping[str, np.ndarray]) -> int:
    size = -1
    for name, array in arrays.items():
        if array.ndim == 0:
            raise invalid_argument(f"Tensor name: {name} has no shape information")
        if size not in (-1, array.shape[0]):
            raise invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {array.shape[0]} "
                f"expecting: {size}"
            )
        size = array.shape[0]
    return size


def _lone_or_named(texts: Mapping[str, str]) -> str:
    if len(texts) == 1:
        return next(iter(texts.values()))
    return f"{{{', '.join(f'{json.dumps(name)}: {text}' for name, text in texts.items())}}}"


def _whole(texts: list[str], shape: Sequence[int]) -> str:
    """Join the texts of elements, in row-major order, into nested lists of the given shape."""
    return f"[{', '.join(_entries(texts, shape))}]" if shape else texts[0]


def _entries(texts: list[str], shape: Sequence[int]) -> list[str]:
    """Like `_whole`, but one text per entry of the first dimension."""
    for axis in range(len(shape) - 1, 0, -1):
        count, width = math.prod(shape[:axis]), shape[axis]
        texts = [f"[{', '.join(texts[i * width : (i + 1) * width])}]" for i in range(count)]
    return texts


def _texts(name: str, array: np.ndarray) -> list[str]:
    kind = array.dtype.kind
    if kind == "O":
        as_bytes = name.endswith("_bytes")
        return [_string(item, as_bytes) for item in array.ravel()]
    if kind == "b":
        return ["true" if item else "false" for item in array.ravel().tolist()]
    if kind in "iu":
        return [str(item) for item in array.ravel().tolist()]
    if kind == "f":
        return _decimals(array)
    raise invalid_argument(f"Failed to write JSON value for tensor type: {array.dtype}")


def _string(item: bytes, as_bytes: bool) -> str:
    if not as_bytes:
        try:
            return json.dumps(item.decode())
        except UnicodeDecodeError:
            pass  # a JSON string cannot hold these bytes, whatever the output's name
    return f'{{"b64": "{base64.b64encode(item).decode()}"}}'


def _decimals(array: np.ndarray) -> list[str]:
    """Format floats with six digits if these identify the value, else with as many as needed."""
    flat = array.ravel()
    wide = flat.astype(np.float64)
    texts = np.empty(flat.size, dtype=object)
    six = _near_six_digits(flat, wide)
    texts[six] = _formatted("%g", wide[six])
    with np.errstate(over="ignore"):
        six[six] = texts[six].astype(np.float64).astype(array.dtype) == flat[six]
    texts[~six] = _formatted(f"%.{_DIGITS[array.dtype.itemsize]}g", wide[~six])
    return [_decimal(text) for text in texts.tolist()]


def _formatted(form: str, values: np.ndarray) -> list[str]:
    return (f"{form} " * values.size % tuple(values.tolist())).split()


def _near_six_digits(flat: np.ndarray, wide: np.ndarray) -> np.ndarray:
    """Whether six digits may identify each value: a cheap test before formatting and parsing."""
    with np.errstate(all="ignore"):
        unit = 10.0 ** (np.floor(np.log10(np.abs(wide))) - 5)
        distance = np.abs(np.rint(wide / unit) * unit - wide)
        far: np.ndarray = distance > 4 * np.spacing(np.abs(flat)).astype(np.float64)
    return ~far


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def _decimal(text: str) -> str:
    if "." in text or "e" in text:
        return text
    return _NOT_FINITE.get(text) or f"{text}.0"
