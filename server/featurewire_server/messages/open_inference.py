"""Converts tensors of the Open Inference Protocol v2 to arrays and back.

All tensors of a request are either raw (the little-endian bytes of the elements) or typed (a field
of numbers or strings per datatype). The answer has the same form.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featurewire._tfs import types_pb2
from featurewire._tfs.meta_graph_pb2 import SignatureDef, TensorInfo
from featurewire._tfs.model_pb2 import ModelSpec
from featurewire_server._tfs.open_inference_pb2 import (
    InferTensorContents,
    ModelInferRequest,
    ModelInferResponse,
)
from featurewire_server.common.errors import ServingError, invalid_argument, unimplemented
from featurewire_server.messages import predict, tensors
from featurewire_server.messages.predict import Run
from featurewire_server.messages.tensors import BY_NUMBER, MAX_RANK, ElementType

MAX_FIELDS = 4096
"""Maximum number of fields that we scan in Python; protobuf parses longer requests."""
_RAW_TAG = 7 << 3 | 2
"""The tag of raw_input_contents."""

Parameters = Mapping[str, object]
Tensor = ModelInferRequest.InferInputTensor
Raw = bytes | memoryview
"""A tensor in raw form."""


@dataclass(frozen=True)
class InferRequest:
    """A ModelInferRequest and its raw tensors, which protobuf would copy two more times."""

    message: ModelInferRequest
    """Without raw_input_contents."""
    raw: Sequence[Raw]


@dataclass(frozen=True)
class Datatype:
    """A datatype of the protocol."""

    name: str
    kind: ElementType
    field: str
    """The field of InferTensorContents that holds the elements; empty: raw form only."""


_DATATYPES = [
    Datatype(name, BY_NUMBER[number], field)
    for name, number, field in (
        ("BOOL", types_pb2.DT_BOOL, "bool_contents"),
        ("UINT8", types_pb2.DT_UINT8, "uint_contents"),
        ("UINT16", types_pb2.DT_UINT16, "uint_contents"),
        ("UINT32", types_pb2.DT_UINT32, "uint_contents"),
        ("UINT64", types_pb2.DT_UINT64, "uint64_contents"),
        ("INT8", types_pb2.DT_INT8, "int_contents"),
        ("INT16", types_pb2.DT_INT16, "int_contents"),
        ("INT32", types_pb2.DT_INT32, "int_contents"),
        ("INT64", types_pb2.DT_INT64, "int64_contents"),
        ("FP16", types_pb2.DT_HALF, ""),
        ("BF16", types_pb2.DT_BFLOAT16, ""),
        ("FP32", types_pb2.DT_FLOAT, "fp32_contents"),
        ("FP64", types_pb2.DT_DOUBLE, "fp64_contents"),
        ("BYTES", types_pb2.DT_STRING, "bytes_contents"),
    )
]
_PACKED_TAGS = {"fp32_contents": 0x32, "fp64_contents": 0x3A}
"""Fields whose packed wire form equals the array's bytes, with their one-byte tags."""
BY_NAME = {each.name: each for each in _DATATYPES}
_BY_NUMBER = {each.kind.number: each for each in _DATATYPES}


def datatype(name: str) -> Datatype:
    """The datatype called `name`; raises INVALID_ARGUMENT."""
    if name not in BY_NAME:
        raise invalid_argument(f"{name!r} is not a datatype; there are {', '.join(BY_NAME)}")
    return BY_NAME[name]


def datatype_of(number: int) -> str:
    """The name of the datatype for a DataType's number; raises UNIMPLEMENTED."""
    found = _BY_NUMBER.get(tensors.base_type(number))
    if found is None:
        raise unimplemented(f"{tensors.type_name(number)} is not a type of this protocol")
    return found.name


def shape_of(info: TensorInfo) -> list[int]:
    """The shape in a signature; -1 stands for any size."""
    return [dim.size for dim in info.tensor_shape.dim]


def parameters(message: ModelInferRequest | Tensor) -> dict[str, object]:
    """The parameters of a request or of a tensor as Python values."""
    return {
        key: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
        for key, value in message.parameters.items()
    }


def parse(data: bytes) -> InferRequest:
    """Parse a serialized ModelInferRequest; its raw tensors stay in `data`. Raises DecodeError."""
    view, raw, rest, at = memoryview(data), [], [], 0
    for _ in range(MAX_FIELDS):
        size, begin = _length(data, at + 1)
        end = begin + size
        # All fields of the message are length-delimited and have a tag of one byte.
        if at == len(data) or data[at] & 0x87 != 2 or end > len(data):
            break
        if data[at] == _RAW_TAG:
            raw.append(view[begin:end])
        else:
            rest.append(view[at:end])
        at = end
    if raw and at == len(data):
        return InferRequest(ModelInferRequest.FromString(b"".join(rest)), raw)
    message = ModelInferRequest.FromString(data)  # typed, malformed, or with very many fields
    return InferRequest(message, message.raw_input_contents)


def _length(data: bytes, at: int) -> tuple[int, int]:
    """The varint at `at`, and the position after it."""
    value = 0
    for index, byte in enumerate(data[at : at + 5]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    return len(data), at  # not a length: beyond the end


def plan(
    signatures: Mapping[str, SignatureDef],
    request: InferRequest,
    signature_name: str,
    *,
    check_method: bool,
) -> Run:
    """The Run for `request`, checked against the signatures. Raises ServingError."""
    message, raw = request.message, request.raw
    if raw and len(raw) != len(message.inputs):
        raise invalid_argument(f"{len(message.inputs)} inputs with {len(raw)} raw_input_contents")
    sent: dict[str, tuple[Tensor, Raw | None]] = {}
    for at, tensor in enumerate(message.inputs):
        if tensor.name in sent:
            raise invalid_argument(f"the input {tensor.name!r} is given twice")
        if raw and tensor.HasField("contents"):
            raise invalid_argument(
                f"the input {tensor.name!r} is given in raw_input_contents and in contents"
            )
        sent[tensor.name] = tensor, raw[at] if raw else None
    outputs = [output.name for output in message.outputs]
    return predict.plan_tensors(
        signatures, signature_name, sent, outputs, _decode, check_method=check_method
    )


def string_count(request: ModelInferRequest, size: int) -> int:
    """Number of strings in a request of `size` bytes, according to the shapes of its inputs.

    A string takes at least 4 bytes, which limits the count if a shape is wrong.
    """
    shapes = [tensor.shape for tensor in request.inputs if tensor.datatype == "BYTES"]
    counts = [math.prod(shape) for shape in shapes if len(shape) <= MAX_RANK]
    return sum(min(max(count, 0), size // 4) for count in counts)


def _decode(name: str, sent: tuple[Tensor, Raw | None]) -> tuple[np.ndarray, int]:
    tensor, raw = sent
    try:
        found = datatype(tensor.datatype)
        shape = tensors.checked_shape(tensor.shape)
        if raw is None:
            values = _from_contents(tensor.contents, found, math.prod(shape))
        elif found.kind.dtype == object:
            values = _strings(raw, math.prod(shape))
        else:
            values = _from_raw(raw, found, math.prod(shape))
    except ServingError as error:
        raise invalid_argument(f"input {name}: {error.message}") from None
    return values.reshape(shape), found.kind.number


def _from_contents(contents: InferTensorContents, found: Datatype, count: int) -> np.ndarray:
    if not found.field:
        raise invalid_argument(f"{found.name} can be sent only in raw_input_contents")
    items = getattr(contents, found.field)
    if len(items) != count:
        raise invalid_argument(f"{found.field} has {len(items)} elements, the shape {count}")
    if found.kind.dtype == object:
        values = np.empty(count, dtype=object)
        values[:] = items
        return values
    wide = {"i": np.dtype(np.int64), "u": np.dtype(np.uint64)}
    kind = wide.get(found.kind.dtype.kind, found.kind.dtype)
    return narrowed(np.fromiter(items, kind, count), found)


def narrowed(wide: np.ndarray, found: Datatype) -> np.ndarray:
    """`wide` as the datatype `found`; raises INVALID_ARGUMENT for integers beyond its range."""
    with np.errstate(over="ignore"):  # a float beyond the range is infinite
        values: np.ndarray = wide.astype(found.kind.dtype)
    if wide.dtype.kind in "iu" and found.kind.dtype.kind in "iu" and (values != wide).any():
        raise invalid_argument(f"a number is beyond the range of {found.name}")
    return values


def _from_raw(raw: Raw, found: Datatype, count: int) -> np.ndarray:
    needed = count * found.kind.dtype.itemsize
    if len(raw) != needed:
        raise invalid_argument(f"{len(raw)} bytes, but {found.name} of this shape takes {needed}")
    if found.name == "BOOL":
        flags: np.ndarray = np.frombuffer(raw, np.uint8) != 0
        return flags
    return np.frombuffer(bytes(raw), found.kind.dtype)  # aligned


def _strings(raw: Raw, count: int) -> np.ndarray:
    """Read strings in raw form: each follows its length, a little-endian uint32."""
    if count > len(raw) // 4:
        raise invalid_argument(f"{len(raw)} bytes cannot hold the {count} strings of the shape")
    values, at = np.empty(count, dtype=object), 0
    for index in range(count):
        if at + 4 > len(raw):
            raise invalid_argument(f"the bytes end before the length of string {index}")
        (size,) = struct.unpack_from("<I", raw, at)
        if at + 4 + size > len(raw):
            raise invalid_argument(f"string {index} should have {size} bytes, but fewer follow")
        values[index] = bytes(raw[at + 4 : at + 4 + size])
        at += 4 + size
    if at != len(raw):
        raise invalid_argument(f"{len(raw) - at} bytes follow the {count} strings of the shape")
    return values


def raw_of(array: np.ndarray) -> bytes:
    """The elements of an array in raw form; each string follows its length."""
    if array.dtype != object:
        return array.tobytes()
    return b"".join(struct.pack("<I", len(text)) + text for text in tensors.texts(array))


def encode(
    spec: ModelSpec,
    values: Mapping[str, np.ndarray],
    *,
    request: ModelInferRequest,
) -> ModelInferResponse:
    """The answer to `request`: typed if its inputs were typed and all outputs can be, else raw."""
    response = ModelInferResponse(
        model_name=spec.name, model_version=str(spec.version.value), id=request.id
    )
    found = {name: tensors.typed(values[name]) for name in output_names(request, values)}
    fields = {name: _BY_NUMBER.get(kind.number) for name, (kind, _) in found.items()}
    typed = any(tensor.HasField("contents") for tensor in request.inputs)
    typed = typed and all(each is not None and each.field for each in fields.values())
    for name, (kind, array) in found.items():
        output = response.outputs.add(
            name=name, datatype=datatype_of(kind.number), shape=array.shape
        )
        if typed:
            _fill(output.contents, fields[name].field, array)  # type: ignore[union-attr]
        else:
            response.raw_output_contents.append(raw_of(array))
    return response


def _fill(contents: InferTensorContents, field: str, array: np.ndarray) -> None:
    if field in _PACKED_TAGS:
        contents.MergeFromString(tensors.packed(_PACKED_TAGS[field], array))
    else:
        items = tensors.texts(array) if array.dtype == object else array.ravel().tolist()
        getattr(contents, field).extend(items)


def output_names(request: ModelInferRequest, values: Mapping[str, np.ndarray]) -> Sequence[str]:
    """The outputs in the order of the request, or in the order of their names."""
    return [output.name for output in request.outputs] or sorted(values)
