"""Predict replies: from bytes to checked rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from featurewire._errors import ImageError, ResponseError
from featurewire._request import Names
from featurewire._tfs import types_pb2
from featurewire._wire import fields, read_varint

__all__ = ["Rows", "read_predict_reply", "read_strings"]

STATUS_NAMES = {1: "empty", 2: "unsupported", 3: "too_large", 4: "corrupt"}

_ADVICE = {
    "empty": "it has no bytes",
    "unsupported": "it is not in an image format that this version reads",
    "too_large": "it has more bytes or pixels than this version allows",
    "corrupt": "it does not decode",
    "not_finite": "its vector holds NaN or infinity",
}


class Rows(NamedTuple):
    """A checked reply."""

    version: int
    vectors: npt.NDArray[np.float32]
    """float32 `(N, dimension)`, read-only, in the reply's own memory."""
    reasons: dict[int, str]
    """Why a row is no vector, by row."""

    def error(self, row: int) -> ImageError:
        reason = self.reasons[row]
        advice = _ADVICE.get(reason, "the server gave it a status that this client does not know")
        return ImageError(f"{reason}: {advice}", reason=reason)


@dataclass
class _Tensor:
    dtype: int = 0
    shape: list[int] = field(default_factory=list)
    unknown_rank: bool = False
    values: dict[int, list[memoryview | int]] = field(default_factory=dict)
    """The payload, by field number of TensorProto."""


def read_predict_reply(reply: bytes, *, names: Names, count: int) -> Rows:
    """Check a reply to `count` images. Raises `ResponseError` for anything but N x D floats."""
    version, outputs = _read(reply)
    if names.output not in outputs:
        raise ResponseError(
            f"the reply has no output {names.output!r}, only {sorted(outputs)}; "
            "name the vector's output with output=…"
        )
    vectors = _floats(names.output, outputs[names.output], count)
    reasons: dict[int, str] = {}
    if names.status is not None and names.status in outputs:
        codes = _integers(names.status, outputs[names.status], count)
        for row in np.flatnonzero(codes).tolist():
            code = int(codes[row])
            reasons[row] = STATUS_NAMES.get(code, f"status {code}")
    elif names.status is not None and names.filtered:
        raise ResponseError(f"the reply has no output {names.status!r}, only {sorted(outputs)}")
    finite = np.isfinite(vectors)
    if not finite.all():
        for row in np.flatnonzero(~finite.all(axis=1)).tolist():
            reasons.setdefault(row, "not_finite")
    return Rows(version=version, vectors=vectors, reasons=reasons)


def read_strings(reply: bytes, name: str) -> list[bytes]:
    """The values of a string output. Raises `ResponseError`."""
    _, outputs = _read(reply)
    tensor = outputs.get(name)
    if tensor is None or tensor.dtype != types_pb2.DT_STRING:
        raise ResponseError(f"the reply has no string output {name!r}")
    return [bytes(value) for value in tensor.values.get(8, []) if not isinstance(value, int)]


def _read(reply: bytes) -> tuple[int, dict[str, _Tensor]]:
    version, outputs = 0, {}
    try:
        for number, value in fields(memoryview(reply)):
            if isinstance(value, int):
                continue
            if number == 1:
                name, tensor = _entry(value)
                outputs[name] = tensor
            elif number == 2:
                version = _version(value)
    except (ValueError, UnicodeDecodeError) as exc:
        raise ResponseError(f"the reply is not a PredictResponse: {exc}") from exc
    return version, outputs


def _entry(buffer: memoryview) -> tuple[str, _Tensor]:
    name, tensor = "", _Tensor()
    for number, value in fields(buffer):
        if isinstance(value, int):
            continue
        if number == 1:
            name = str(value, "utf-8")
        elif number == 2:
            tensor = _tensor(value)
    return name, tensor


def _tensor(buffer: memoryview) -> _Tensor:
    tensor = _Tensor()
    for number, value in fields(buffer):
        if number == 1 and isinstance(value, int):
            tensor.dtype = value
        elif number == 2 and not isinstance(value, int):
            for part, dim in fields(value):
                if part == 2 and not isinstance(dim, int):
                    sizes = [size for each, size in fields(dim) if each == 1]
                    tensor.shape.append(int(sizes[-1]) if sizes else 0)
                elif part == 3:
                    tensor.unknown_rank = bool(dim)
        else:
            tensor.values.setdefault(number, []).append(value)
    return tensor


def _version(buffer: memoryview) -> int:
    for number, value in fields(buffer):
        if number == 2 and not isinstance(value, int):
            for part, version in fields(value):
                if part == 1 and isinstance(version, int):
                    return version
    return 0


def _check(name: str, tensor: _Tensor, dtype: int, count: int, rank: int) -> None:
    if tensor.dtype != dtype:
        raise ResponseError(
            f"output {name!r} is {_dtype_name(tensor.dtype)}, not {_dtype_name(dtype)}"
        )
    if tensor.unknown_rank or len(tensor.shape) != rank:
        wanted = "[N, dimension]" if rank == 2 else "[N]"
        raise ResponseError(f"output {name!r} has shape {tensor.shape}, not {wanted}")
    if tensor.shape[0] != count:
        raise ResponseError(f"output {name!r} has {tensor.shape[0]} rows for {count} images")
    if rank == 2 and not 0 < tensor.shape[1] < 1 << 31:
        raise ResponseError(f"output {name!r} has vectors of dimension {tensor.shape[1]}")


def _floats(name: str, tensor: _Tensor, count: int) -> npt.NDArray[np.float32]:
    _check(name, tensor, types_pb2.DT_FLOAT, count, rank=2)
    rows, dimension = tensor.shape
    # float_val is field 5, packed; tensor_content is field 4: the same bytes.
    data = _joined(tensor.values.get(5) or tensor.values.get(4) or [])
    if len(data) != rows * dimension * 4:
        raise ResponseError(
            f"output {name!r} says shape {tensor.shape} and holds {len(data) / 4:g} floats"
        )
    return np.frombuffer(data, "<f4").reshape(rows, dimension)


def _integers(name: str, tensor: _Tensor, count: int) -> npt.NDArray[np.int32]:
    _check(name, tensor, types_pb2.DT_INT32, count, rank=1)
    content = _joined(tensor.values.get(4, []))
    if len(content):
        codes = np.frombuffer(content, "<i4") if len(content) % 4 == 0 else np.empty(0, "<i4")
    else:
        codes = _varints(tensor.values.get(7, []))
    if len(codes) != count:
        raise ResponseError(f"output {name!r} holds {len(codes)} values for {count} images")
    return codes


def _joined(parts: list[memoryview | int]) -> memoryview | bytes:
    buffers = [part for part in parts if not isinstance(part, int)]
    return buffers[0] if len(buffers) == 1 else b"".join(buffers)


def _varints(parts: list[memoryview | int]) -> npt.NDArray[np.int32]:
    numbers: list[int] = []
    for part in parts:
        if isinstance(part, int):
            numbers.append(part)
            continue
        at = 0
        try:
            while at < len(part):
                number, at = read_varint(part, at)
                numbers.append(number)
        except ValueError as exc:
            raise ResponseError(f"a packed number is broken: {exc}") from exc
    # A negative int32 travels as a 64-bit two's complement.
    return np.array(numbers, np.uint64).astype(np.int64).astype(np.int32)


def _dtype_name(dtype: int) -> str:
    try:
        return types_pb2.DataType.Name(dtype)
    except ValueError:
        return f"dtype {dtype}"
