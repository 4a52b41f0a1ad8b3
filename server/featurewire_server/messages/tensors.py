"""Converts TensorProto to numpy arrays and back, for every element type that can be served.

The shape in a TensorProto may be wrong. So we check it against the data received before we
allocate an array of that size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from featurewire._tfs import types_pb2
from featurewire._tfs.tensor_pb2 import TensorProto
from featurewire._tfs.tensor_shape_pb2 import TensorShapeProto
from featurewire_server.common.errors import ServingError, invalid_argument, unimplemented

MAX_RANK = 64
"""The limit of numpy; TensorFlow's is 254."""
REF = 100
"""Difference between the number of a reference DataType and that of its base type."""
MAX_FILLED_BYTES = 64 << 20
"""Maximum size of a tensor that has fewer values than its shape requires."""


@dataclass(frozen=True)
class ElementType:
    """A TensorFlow dtype, and its form in numpy and in a TensorProto."""

    number: int
    dtype: np.dtype
    field: str
    width: int = 1
    """Number of values in `field` per element: 2 for complex numbers."""

    @property
    def name(self) -> str:
        """The name in error texts: `float`, `string`, `int32`, …"""
        return types_pb2.DataType.Name(self.number).removeprefix("DT_").lower()


_TYPES = [
    ElementType(types_pb2.DT_FLOAT, np.dtype("<f4"), "float_val"),
    ElementType(types_pb2.DT_DOUBLE, np.dtype("<f8"), "double_val"),
    ElementType(types_pb2.DT_INT32, np.dtype("<i4"), "int_val"),
    ElementType(types_pb2.DT_UINT8, np.dtype("u1"), "int_val"),
    ElementType(types_pb2.DT_INT16, np.dtype("<i2"), "int_val"),
    ElementType(types_pb2.DT_INT8, np.dtype("i1"), "int_val"),
    ElementType(types_pb2.DT_UINT16, np.dtype("<u2"), "int_val"),
    ElementType(types_pb2.DT_STRING, np.dtype(object), "string_val"),
    ElementType(types_pb2.DT_COMPLEX64, np.dtype("<c8"), "scomplex_val", 2),
    ElementType(types_pb2.DT_COMPLEX128, np.dtype("<c16"), "dcomplex_val", 2),
    ElementType(types_pb2.DT_INT64, np.dtype("<i8"), "int64_val"),
    ElementType(types_pb2.DT_BOOL, np.dtype("?"), "bool_val"),
    ElementType(types_pb2.DT_HALF, np.dtype("<f2"), "half_val"),
    ElementType(types_pb2.DT_BFLOAT16, np.dtype(ml_dtypes.bfloat16), "half_val"),
    ElementType(types_pb2.DT_UINT32, np.dtype("<u4"), "uint32_val"),
    ElementType(types_pb2.DT_UINT64, np.dtype("<u8"), "uint64_val"),
]
BY_NUMBER = {kind.number: kind for kind in _TYPES}
_BY_DTYPE = {kind.dtype: kind for kind in _TYPES}

_RAW_TAGS = {"float_val": 0x2A, "double_val": 0x32, "scomplex_val": 0x4A, "dcomplex_val": 0x62}
"""Fields whose packed wire form equals the array's bytes, with their one-byte tags."""


def base_type(number: int) -> int:
    """The DataType of a tensor's values: for a reference type, its base type."""
    return number - REF if number > REF else number


def type_name(number: int) -> str:
    """The name of a DataType number in error texts; `type N` for an unknown number."""
    kind = BY_NUMBER.get(number)
    if kind is not None:
        return kind.name
    try:
        suffix = "_ref" if number > REF else ""
        return types_pb2.DataType.Name(base_type(number)).removeprefix("DT_").lower() + suffix
    except ValueError:
        return f"type {number}"


def dtype_name(array: np.ndarray) -> str:
    """The proto's name of the DataType of `array`, such as `DT_FLOAT`."""
    dtype = np.dtype(object) if array.dtype.kind in "SU" else array.dtype
    kind = _BY_DTYPE.get(dtype)
    return str(dtype) if kind is None else types_pb2.DataType.Name(kind.number)


def decode(name: str, proto: TensorProto) -> np.ndarray:
    """The array of `proto`; strings become an object array of bytes.

    Raises INVALID_ARGUMENT, with the tensor's name, if dtype, shape and values do not match.
    """
    try:
        return _decode(proto)
    except ServingError as error:
        raise invalid_argument(f"tensor parsing error: {name}: {error.message}") from None


def _decode(proto: TensorProto) -> np.ndarray:
    kind = BY_NUMBER.get(proto.dtype)
    if kind is None:
        raise invalid_argument(f"{type_name(proto.dtype)} is not a type that can be served")
    shape = _shape(proto.tensor_shape)
    count = math.prod(shape)
    if proto.tensor_content and count:
        values = _from_content(proto.tensor_content, kind, count)
    else:
        values = _from_field(proto, kind, count)
    return values.reshape(shape)


def _shape(proto: TensorShapeProto) -> tuple[int, ...]:
    if proto.unknown_rank:
        raise invalid_argument("the shape has an unknown rank")
    return checked_shape(dim.size for dim in proto.dim)


def checked_shape(sizes: Iterable[int]) -> tuple[int, ...]:
    """`sizes` as a shape that numpy can hold; raises INVALID_ARGUMENT."""
    shape = tuple(sizes)
    if len(shape) > MAX_RANK:
        raise invalid_argument(f"rank {len(shape)} is larger than {MAX_RANK}")
    if any(size < 0 for size in shape):
        raise invalid_argument(f"the shape {list(shape)} has a negative dimension")
    # numpy refuses a huge dimension even if a dimension of 0 makes the array empty.
    if math.prod(max(size, 1) for size in shape) > 1 << 48:
        raise invalid_argument(f"the shape {list(shape)} is too large")
    return shape


def _from_content(content: bytes, kind: ElementType, count: int) -> np.ndarray:
    if kind.dtype == object:
        return _strings_from_content(content, count)
    if len(content) != count * kind.dtype.itemsize:
        need = f"a {kind.name} tensor of {count * kind.dtype.itemsize} bytes"
        raise _misfit("tensor_content", len(content), need)
    if kind.dtype == bool and content.translate(None, b"\0\1"):
        raise invalid_argument("tensor_content of a bool tensor holds a byte other than 0 and 1")
    return np.frombuffer(content, kind.dtype)


def _misfit(field: str, size: int, needed: str) -> ServingError:
    return invalid_argument(f"{field} holds {size} bytes, the shape needs {needed}")


def _strings_from_content(content: bytes, count: int) -> np.ndarray:
    """Read strings as TensorFlow writes them: all lengths as varints, then all bytes."""
    if count > len(content):
        raise _misfit("tensor_content", len(content), f"{count} strings")
    sizes, at = [], 0
    for _ in range(count):
        size, shift = 0, 0
        while True:
            if at == len(content) or shift > 28:
                raise invalid_argument("tensor_content does not begin with the lengths of strings")
            byte = content[at]
            size, shift, at = size | (byte & 0x7F) << shift, shift + 7, at + 1
            if byte < 0x80:
                break
        sizes.append(size)
    if sum(sizes) != len(content) - at:
        raise _misfit("tensor_content", len(content) - at, f"strings of {sum(sizes)} bytes")
    values = np.empty(count, dtype=object)
    for index, size in enumerate(sizes):
        values[index] = content[at : at + size]
        at += size
    return values


def _from_field(proto: TensorProto, kind: ElementType, count: int) -> np.ndarray:
    """The first `count` values of `proto`'s field.

    As in TensorFlow, missing values repeat the last one. An empty field means zeros or empty
    strings.
    """
    present = min(len(getattr(proto, kind.field)) // kind.width, count)
    values = _values(proto, kind, present)
    if present == count:
        return values
    blank = b"" if kind.dtype == object else np.zeros((), kind.dtype)
    last = values[-1] if present else blank
    size = max(kind.dtype.itemsize, len(last) if kind.dtype == object else 0)
    if count * size > MAX_FILLED_BYTES:
        raise invalid_argument(
            f"{kind.field} holds {present} values, and filling the shape's {count} takes more "
            f"than {MAX_FILLED_BYTES} bytes"
        )
    filled = np.empty(count, dtype=kind.dtype)
    filled[:present] = values
    filled[present:] = last
    return filled


def _values(proto: TensorProto, kind: ElementType, present: int) -> np.ndarray:
    if kind.dtype == object:
        values = np.empty(present, dtype=object)
        values[:] = proto.string_val[:present]
        return values
    field = getattr(proto, kind.field)
    if kind.field in _RAW_TAGS:
        # Serializing the packed field again yields the array's bytes, much faster than a loop.
        only = TensorProto()
        getattr(only, kind.field).MergeFrom(field)
        data = only.SerializeToString()
        start = len(data) - len(field) * (kind.dtype.itemsize // kind.width)
        return np.frombuffer(data, kind.dtype, present, start)
    if kind.field == "half_val":
        bits = np.fromiter(field, np.int64, present)
        _within(bits, 0, 0xFFFF, kind)
        return bits.astype(np.uint16).view(kind.dtype)
    if kind.field == "int_val" and kind.dtype != np.int32:
        wide = np.fromiter(field, np.int64, present)
        limits = np.iinfo(kind.dtype)
        _within(wide, limits.min, limits.max, kind)
        return wide.astype(kind.dtype)
    return np.fromiter(field, kind.dtype, present)


def _within(values: np.ndarray, low: int, high: int, kind: ElementType) -> None:
    if values.size and (values.min() < low or values.max() > high):
        raise invalid_argument(f"{kind.field} holds a value outside the range of {kind.name}")


def typed(array: np.ndarray) -> tuple[ElementType, np.ndarray]:
    """The ElementType of `array`, and the array in that type (little-endian; text as objects).

    Raises UNIMPLEMENTED for a type that cannot be served.
    """
    array = np.asarray(array)
    if array.dtype.kind in "SU":
        array = array.astype(object)
    kind = _BY_DTYPE.get(
        array.dtype.newbyteorder("<") if array.dtype.kind in "fiuc" else array.dtype
    )
    if kind is None:
        raise unimplemented(f"{array.dtype} is not a type that can be served")
    return kind, array if kind.dtype == object else np.asarray(array, kind.dtype, order="C")


def texts(array: np.ndarray) -> list[bytes]:
    """The strings of an object array as bytes, in row-major order."""
    return [item.encode() if isinstance(item, str) else item for item in array.ravel()]


def encode(array: np.ndarray, *, content: bool = False) -> TensorProto:
    """`array` as a TensorProto: in the field of its type, or in tensor_content if `content`.

    Raises UNIMPLEMENTED for a type that cannot be served, because the model is at fault, not the
    request.
    """
    kind, array = typed(array)
    proto = TensorProto(dtype=kind.number)  # type: ignore[arg-type]
    proto.tensor_shape.SetInParent()  # a scalar also needs a shape
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if kind.dtype == object:
        items = texts(array)
        if content:
            proto.tensor_content = b"".join([*(_varint(len(item)) for item in items), *items])
        else:
            proto.string_val.extend(items)
        return proto
    if content:
        proto.tensor_content = array.tobytes()
    elif kind.field in _RAW_TAGS:
        proto.MergeFromString(packed(_RAW_TAGS[kind.field], array))
    elif kind.field == "half_val":
        proto.half_val.extend(array.view(np.uint16).ravel().tolist())
    else:
        getattr(proto, kind.field).extend(array.ravel().tolist())
    return proto


def packed(tag: int, array: np.ndarray) -> bytes:
    """The wire form of a packed field with `tag`, much faster than filling the field in a loop."""
    data = array.tobytes()
    return bytes([tag]) + _varint(len(data)) + data if data else b""


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
