"""TensorProto to and from numpy, for every element type that can be served.

A TensorProto from the network may lie: its shape is checked against the bytes
that really came before anything of that size is allocated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from featurewire._tfs import types_pb2
from featurewire._tfs.tensor_pb2 import TensorProto
from featurewire._tfs.tensor_shape_pb2 import TensorShapeProto
from featurewire_server.common.errors import ServingError, invalid_argument, unimplemented

MAX_RANK = 64  # numpy's own limit; TensorFlow's is 254
REF = 100
"""What a DataType's number and that of a reference to it differ by."""
MAX_REPEATED_BYTES = 64 << 20
"""How large a tensor of one repeated value (a shape and a single element) may become."""


@dataclass(frozen=True)
class ElementType:
    """How one TensorFlow dtype looks in numpy and in a TensorProto."""

    number: int
    dtype: np.dtype
    field: str
    width: int = 1
    """Values of `field` that make an element: 2 for complex numbers."""

    @property
    def name(self) -> str:
        """As in messages: `float`, `string`, `int32`, …"""
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

# Fields whose packed wire form is the array itself, by their one-byte tag.
_RAW_TAGS = {"float_val": 0x2A, "double_val": 0x32, "scomplex_val": 0x4A, "dcomplex_val": 0x62}


def base_type(number: int) -> int:
    """The DataType that is fed to a tensor of the DataType `number`: of references, the value's."""
    return number - REF if number > REF else number


def type_name(number: int) -> str:
    """The name of a DataType number in messages; the number itself where it has none."""
    kind = BY_NUMBER.get(number)
    if kind is not None:
        return kind.name
    try:
        suffix = "_ref" if number > REF else ""
        return types_pb2.DataType.Name(base_type(number)).removeprefix("DT_").lower() + suffix
    except ValueError:
        return f"type {number}"


def decode(name: str, proto: TensorProto) -> np.ndarray:
    """The array of `proto`; strings become an object array of bytes.

    Raises INVALID_ARGUMENT, naming the tensor, when dtype, shape and values do not fit together.
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
    if proto.tensor_content:
        values = _from_content(proto.tensor_content, kind, count)
    else:
        values = _from_field(proto, kind, count)
    return values.reshape(shape)


def _shape(proto: TensorShapeProto) -> tuple[int, ...]:
    if proto.unknown_rank:
        raise invalid_argument("the shape has an unknown rank")
    shape = tuple(dim.size for dim in proto.dim)
    if len(shape) > MAX_RANK:
        raise invalid_argument(f"rank {len(shape)} is larger than {MAX_RANK}")
    if any(size < 0 for size in shape):
        raise invalid_argument(f"the shape {list(shape)} has a negative dimension")
    # A zero beside a huge dimension makes no elements, yet numpy cannot hold such a shape.
    if math.prod(max(size, 1) for size in shape) > 1 << 48:
        raise invalid_argument(f"the shape {list(shape)} is too large")
    return shape


def _from_content(content: bytes, kind: ElementType, count: int) -> np.ndarray:
    if kind.dtype == object:
        raise invalid_argument("strings in tensor_content are not supported; use string_val")
    if len(content) != count * kind.dtype.itemsize:
        raise invalid_argument(
            f"tensor_content holds {len(content)} bytes, the shape and type "
            f"{kind.name} need {count * kind.dtype.itemsize}"
        )
    return np.frombuffer(content, kind.dtype)


def _from_field(proto: TensorProto, kind: ElementType, count: int) -> np.ndarray:
    field = getattr(proto, kind.field)
    present = len(field) // kind.width
    repeats = present == 1 and count > 1 and kind.dtype != object
    if len(field) % kind.width or (present != count and not repeats):
        raise invalid_argument(
            f"{kind.field} holds {len(field)} values, the shape needs {count * kind.width}"
        )
    if repeats and count * kind.dtype.itemsize > MAX_REPEATED_BYTES:
        raise invalid_argument(
            f"one value repeated {count} times is more than {MAX_REPEATED_BYTES} bytes"
        )
    values = _values(proto, kind, present)
    # A shape with a single value is how constants are abbreviated.
    return np.repeat(values, count) if repeats else values


def _values(proto: TensorProto, kind: ElementType, present: int) -> np.ndarray:
    if kind.dtype == object:
        values = np.empty(present, dtype=object)
        values[:] = proto.string_val[:]
        return values
    field = getattr(proto, kind.field)
    if kind.field in _RAW_TAGS:
        # Serialized again, the packed field is the array: far quicker than item by item.
        only = TensorProto()
        getattr(only, kind.field).MergeFrom(field)
        data = only.SerializeToString()
        size = present * kind.dtype.itemsize
        return np.frombuffer(data, kind.dtype, present, len(data) - size)
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


def encode(array: np.ndarray, *, content: bool = False) -> TensorProto:
    """`array` as a TensorProto: in the field of its type, or in tensor_content if `content`.

    Strings are always in string_val. Raises UNIMPLEMENTED for a type without a TensorProto form:
    it is the model that brings it, not the request.
    """
    array = np.asarray(array)
    if array.dtype.kind in "SU":
        array = array.astype(object)
    kind = _BY_DTYPE.get(
        array.dtype.newbyteorder("<") if array.dtype.kind in "fiuc" else array.dtype
    )
    if kind is None:
        raise unimplemented(f"{array.dtype} is not a type that can be served")
    proto = TensorProto(dtype=kind.number)  # type: ignore[arg-type]
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if kind.dtype == object:
        proto.string_val.extend(
            item.encode() if isinstance(item, str) else item for item in array.ravel()
        )
        return proto
    array = np.ascontiguousarray(array, dtype=kind.dtype)
    if content:
        proto.tensor_content = array.tobytes()
    elif kind.field in _RAW_TAGS:
        data = array.tobytes()
        if data:
            proto.MergeFromString(bytes([_RAW_TAGS[kind.field]]) + _varint(len(data)) + data)
    elif kind.field == "half_val":
        proto.half_val.extend(array.view(np.uint16).ravel().tolist())
    else:
        getattr(proto, kind.field).extend(array.ravel().tolist())
    return proto


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
