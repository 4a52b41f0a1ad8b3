"""Predict replies: from bytes to checked rows."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from featurewire._errors import ImageError, ResponseError
from featurewire._tfs import _pool, predict_pb2, types_pb2

STATUS_NAMES = {1: "empty", 2: "unsupported", 3: "too_large", 4: "corrupt"}

_ADVICE = {
    "empty": "it has no bytes",
    "unsupported": "it is not in an image format that this version reads",
    "too_large": "it has more bytes or pixels than this version allows",
    "corrupt": "it does not decode",
    "not_finite": "its vector contains NaN or infinity",
}

Floats = npt.NDArray[np.float32]


class Rows(NamedTuple):
    """A checked reply."""

    version: int
    vectors: Floats
    """float32 `(N, dimension)`, read-only."""
    reasons: dict[int, str]
    """The reason for each row without a vector, by row."""

    def error(self, row: int) -> ImageError:
        reason = self.reasons[row]
        advice = _ADVICE.get(reason, "the server returned a status that this client does not know")
        return ImageError(f"{reason}: {advice}", reason=reason)


def read_predict_reply(
    reply: bytes, count: int, *, output: str, status: str | None, filtered: bool = True
) -> Rows:
    """Check a reply to `count` images. Raises `ResponseError` for anything but N x D floats."""
    message = parsed(reply)
    outputs = message.outputs
    for name in [output, status] if filtered and status is not None else [output]:
        if name not in outputs:
            raise ResponseError(
                f"the reply has no output {name!r}, only {sorted(outputs)}",
                advice="output" if name == output else "",
            )
    vectors = _floats(output, outputs[output], count, reply)
    reasons: dict[int, str] = {}
    if status is not None and status in outputs:
        codes = _integers(status, outputs[status], count)
        reasons = {
            row: STATUS_NAMES.get(code, f"status {code}") for row, code in enumerate(codes) if code
        }
    flat = vectors.ravel()
    # A sum of squares that is not finite shows NaN or infinity. It is cheaper than a check of each
    # number. Very large numbers also make it overflow, so the rows are then checked one by one.
    with np.errstate(over="ignore"):
        squares = flat.dot(flat)
    if not math.isfinite(squares):
        finite = np.isfinite(vectors).all(axis=1)
        for row in np.flatnonzero(~finite).tolist():
            reasons.setdefault(row, "not_finite")
    return Rows(message.model_spec.version.value, vectors, reasons)


def read_strings(reply: bytes, name: str) -> list[bytes]:
    """The values of a string output. Raises `ResponseError`."""
    outputs = parsed(reply).outputs
    if name not in outputs or outputs[name].dtype != types_pb2.DT_STRING:
        raise ResponseError(f"the reply has no string output {name!r}")
    content: bytes = outputs[name].tensor_content
    if not content:
        return list(outputs[name].string_val)
    shape = [dim.size for dim in outputs[name].tensor_shape.dim]
    return _strings_of(name, content, math.prod(shape))


def _strings_of(name: str, content: bytes, count: int) -> list[bytes]:
    """Decode strings from `tensor_content`: the length of each as a varint, then all bytes.

    TensorFlow Serving sends them with --enable_serialization_as_tensor_content.
    """
    sizes = [0]
    shift = 0
    for at, byte in enumerate(content[: 5 * count]):
        sizes[-1] |= (byte & 0x7F) << shift
        shift = shift + 7 if byte & 0x80 else 0
        if not shift and len(sizes) == count:
            ends = list(accumulate(sizes, initial=at + 1))
            if ends[-1] == len(content):
                return [content[start:end] for start, end in pairwise(ends)]
            break
        if not shift:
            sizes.append(0)
    raise ResponseError(f"output {name!r} does not have the {count} strings of its shape")


def _raw_reply() -> Any:
    """A PredictResponse class whose `float_val` is bytes, so that parsing makes no list of floats.

    Packed floats and bytes have the same encoding.
    """
    pool = descriptor_pool.DescriptorPool()
    for name in _files("tensorflow_serving/apis/predict.proto"):
        file = descriptor_pb2.FileDescriptorProto()
        _pool.POOL.FindFileByName(name).CopyToProto(file)
        for message in file.message_type:
            for field in message.field:
                if (message.name, field.name) == ("TensorProto", "float_val"):
                    field.type, field.label = field.TYPE_BYTES, field.LABEL_OPTIONAL
                    field.ClearField("options")
        pool.AddSerializedFile(file.SerializeToString())
    found = pool.FindMessageTypeByName("tensorflow.serving.PredictResponse")
    return message_factory.GetMessageClass(found)


def _files(name: str) -> list[str]:
    """A schema file after the files that it imports."""
    needs = [file.name for file in _pool.POOL.FindFileByName(name).dependencies]
    return list(dict.fromkeys([each for need in needs for each in _files(need)] + [name]))


_RawReply = _raw_reply()


def parsed(data: bytes, message: Any = _RawReply) -> Any:
    """Parse a reply. Raises `ResponseError`."""
    try:
        return message.FromString(data)
    except Exception as error:  # the DecodeError of any protobuf implementation
        raise ResponseError(f"the reply is not a {message.DESCRIPTOR.name}: {error}") from error


def _check(name: str, tensor: Any, dtype: int, count: int, rank: int) -> list[int]:
    """The tensor's shape. Raises `ResponseError` if it does not fit `count` images."""
    if tensor.dtype != dtype:
        raise ResponseError(
            f"output {name!r} is {enum_name(types_pb2.DataType, tensor.dtype)}, "
            f"not {types_pb2.DataType.Name(dtype)}"
        )
    proto = tensor.tensor_shape
    dims = proto.dim
    shape = [dims[axis].size for axis in range(len(dims))]  # faster than to iterate
    if proto.unknown_rank or len(shape) != rank:
        wanted = "[N, dimension]" if rank == 2 else "[N]"
        raise ResponseError(f"output {name!r} has shape {shape}, not {wanted}")
    if shape[0] != count:
        raise ResponseError(f"output {name!r} has {shape[0]} rows for {count} images")
    if rank == 2 and not 0 < shape[1] < 1 << 31:
        raise ResponseError(f"output {name!r} has vectors of dimension {shape[1]}")
    return shape


def _floats(name: str, tensor: Any, count: int, reply: bytes) -> Floats:
    rows, dimension = _check(name, tensor, types_pb2.DT_FLOAT, count, rank=2)
    data: bytes = tensor.float_val or tensor.tensor_content
    if len(data) != rows * dimension * 4:  # floats in several chunks: legal, but rare
        plain = parsed(reply, predict_pb2.PredictResponse).outputs[name]
        data = np.array(plain.float_val, "<f4").tobytes() or plain.tensor_content
    if len(data) != rows * dimension * 4:
        raise ResponseError(
            f"output {name!r} has shape {[rows, dimension]} but {len(data) / 4:g} floats"
        )
    return np.frombuffer(data, "<f4").reshape(rows, dimension)


def _integers(name: str, tensor: Any, count: int) -> list[int]:
    _check(name, tensor, types_pb2.DT_INT32, count, rank=1)
    content: bytes = tensor.tensor_content
    whole = content[: len(content) // 4 * 4]
    codes = np.frombuffer(whole, "<i4").tolist() if whole else list(tensor.int_val)
    if len(codes) != count:
        raise ResponseError(f"output {name!r} has {len(codes)} values for {count} images")
    return codes


def enum_name(enum: Any, number: int) -> str:
    """The name of an enum value, or the number as text if this client does not know it."""
    try:
        return str(enum.Name(number))
    except ValueError:
        return str(number)
