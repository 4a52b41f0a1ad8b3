"""Reads the tensors of a Predict request from JSON, like TensorFlow Serving."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from featurewire._tfs import types_pb2
from featurewire._tfs.meta_graph_pb2 import TensorInfo
from featurewire_server.common.errors import ServingError, invalid_argument, unimplemented
from featurewire_server.messages.tensors import BY_NUMBER, MAX_RANK, ElementType, type_name
from featurewire_server.transport.rest.document import require_in_range, shown, type_error

_FLOATS = {types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE}
_INTEGERS = {
    types_pb2.DT_INT8,
    types_pb2.DT_INT16,
    types_pb2.DT_INT32,
    types_pb2.DT_INT64,
    types_pb2.DT_UINT8,
    types_pb2.DT_UINT16,
    types_pb2.DT_UINT32,
    types_pb2.DT_UINT64,
}


def is_base64(value: object) -> bool:
    """Whether `value` is an object that encodes bytes: `{"b64": "…"}` without other keys."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def bytes_of(value: dict[str, str]) -> bytes:
    """The bytes of a base64 object; padding may be missing."""
    text = "".join(value["b64"].split())
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid_argument("Unable to base64 decode") from None


def signature_name(document: dict[str, Any]) -> str:
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument(
            f"JSON Value: {shown(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return name


def is_row_form(document: dict[str, Any]) -> bool:
    """Whether the document has `instances` (rows) or `inputs` (columns).

    Raises INVALID_ARGUMENT if it has both or neither.
    """
    rows, columns = "instances" in document, "inputs" in document
    if rows and columns:
        raise invalid_argument(
            f"JSON Value: {shown(document)} Not formatted correctly expecting only one of "
            "'inputs' or 'instances' keys to exist"
        )
    if not rows and not columns:
        raise invalid_argument("Missing 'inputs' or 'instances' key")
    return rows


def inputs(document: dict[str, Any], infos: Mapping[str, TensorInfo]) -> dict[str, np.ndarray]:
    """The document's arrays for the signature inputs `infos`. Raises ServingError."""
    if is_row_form(document):
        return _from_rows(document["instances"], infos)
    return _from_columns(document["inputs"], infos)


def _from_columns(value: Any, infos: Mapping[str, TensorInfo]) -> dict[str, np.ndarray]:
    if not isinstance(value, dict) or is_base64(value):
        if len(infos) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        return {name: tensor(value, info.dtype) for name, info in infos.items()}
    for name in infos:
        if name not in value:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
    return {name: tensor(value[name], info.dtype) for name, info in infos.items()}


def _from_rows(rows: Any, infos: Mapping[str, TensorInfo]) -> dict[str, np.ndarray]:
    if not isinstance(rows, list):
        raise invalid_argument(
            f"JSON Value: {shown(rows)} Expecting 'instances' to be an list/array"
        )
    if not rows:
        raise invalid_argument("JSON Value: [] No values in 'instances' array")
    if not isinstance(rows[0], dict) and len(infos) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    named = _is_named(rows[0])
    with suppress(ServingError):
        if not named:
            return {name: tensor(rows, info.dtype) for name, info in infos.items()}
        if all(isinstance(row, dict) and row.keys() == infos.keys() for row in rows):
            return {
                name: tensor([row[name] for row in rows], info.dtype)
                for name, info in infos.items()
            }
    return _row_by_row(rows, infos, named)


def _row_by_row(
    rows: list[Any], infos: Mapping[str, TensorInfo], named: bool
) -> dict[str, np.ndarray]:
    """Convert row by row, so that an error can name the row.

    Converting all rows as one tensor is ten times as fast.
    """
    columns: dict[str, list[np.ndarray]] = {name: [] for name in infos}
    for index, row in enumerate(rows):
        if _is_named(row) != named:
            raise invalid_argument(
                f"Expecting object but got list at item {index} of input list"
                if named
                else f"Expecting value/list but got object at item {index} of input list"
            )
        for name, value in (row if named else {next(iter(infos)): row}).items():
            try:
                _append(columns, infos, name, value)
            except ServingError as error:
                key = f" key: {name}" if named else ""
                raise invalid_argument(
                    f"Failed to process element: {index}{key} of 'instances' list. "
                    f"Error: {error.code.name}: {error.message}"
                ) from None
        if named and row.keys() != infos.keys():
            raise invalid_argument(
                f"Failed to process element: {index} of 'instances' list. JSON object: "
                f"{shown(row)} keys must be equal to: {','.join(sorted(infos))}"
            )
    return {name: np.stack(arrays) for name, arrays in columns.items()}


def _is_named(row: object) -> bool:
    return isinstance(row, dict) and not is_base64(row)


def _append(
    columns: dict[str, list[np.ndarray]], infos: Mapping[str, TensorInfo], name: str, value: Any
) -> None:
    if name not in infos:
        raise invalid_argument(f"JSON object: does not have named input: {name}")
    array = tensor(value, infos[name].dtype)
    if array.ndim == MAX_RANK:  # the rows need one more dimension
        raise invalid_argument("JSON Parse error: nested too deeply")
    column = columns[name]
    if column and column[0].size != array.size:
        raise invalid_argument(f"Expecting tensor size: {column[0].size} but got: {array.size}")
    if column and column[0].shape != array.shape:
        raise invalid_argument(
            f"Expecting shape {_brackets(column[0].shape)} but got: {_brackets(array.shape)}"
        )
    column.append(array)


def _brackets(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


def tensor(value: Any, dtype: int) -> np.ndarray:
    """An array of the DataType `dtype` from a scalar or from evenly nested lists."""
    shape: list[int] = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        if len(shape) > MAX_RANK:
            raise invalid_argument("JSON Parse error: nested too deeply")
        first = first[0] if first else None
    items: list[Any] = []
    _flatten(value, shape, 0, items)
    return _array(items, dtype).reshape(shape)


def _flatten(value: Any, shape: list[int], level: int, items: list[Any]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid_argument(
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON "
                f"DOM. Expected at level: {len(shape)}"
            )
        items.append(value)
        return
    if level >= len(shape):
        raise invalid_argument(
            f"Encountered list at unexpected level: {level} expected < {len(shape)}"
        )
    if len(value) != shape[level]:
        raise invalid_argument(
            f"Encountered list at unexpected size: {len(value)} at level: {level} "
            f"expected size: {shape[level]}"
        )
    if level == len(shape) - 1 and list not in set(map(type, value)):
        items.extend(value)
        return
    for item in value:
        _flatten(item, shape, level + 1, items)


def _array(items: list[Any], dtype: int) -> np.ndarray:
    kind = BY_NUMBER.get(dtype)
    if kind is not None and dtype == types_pb2.DT_STRING:
        array = np.empty(len(items), dtype=object)
        array[:] = [_string(item) for item in items]
        return array
    if kind is not None and dtype == types_pb2.DT_BOOL:
        _require(items, {bool}, kind)
        return np.array(items, dtype=kind.dtype)
    if kind is not None and dtype in _INTEGERS:
        _require(items, {int}, kind)
        limits = np.iinfo(kind.dtype)
        for item in (min(items), max(items)) if items else ():
            if not limits.min <= item <= limits.max:
                raise type_error(item, kind.name)
        return np.array(items, dtype=kind.dtype)
    if kind is not None and dtype in _FLOATS:
        _require(items, {int, float}, kind)
        return _floats(items, kind)
    value = shown(items[0]) if items else "[]"
    raise unimplemented(f"Conversion of JSON Value: {value} to type: {type_name(dtype)}")


def _require(items: list[Any], types: set[type], kind: ElementType) -> None:
    if not set(map(type, items)) <= types:
        raise type_error(next(item for item in items if type(item) not in types), kind.name)


def _floats(items: list[Any], kind: ElementType) -> np.ndarray:
    """The numbers rounded to the type `kind`, as in TensorFlow Serving.

    A number beyond the range of a float becomes infinity; one beyond the range of a double raises
    INVALID_ARGUMENT.
    """
    try:
        wide = np.array(items, dtype=np.float64)
    except OverflowError:
        wide = np.array([math.inf])
    if not np.isfinite(wide).all():
        for item in items:
            require_in_range(item)
    with np.errstate(over="ignore"):
        return wide.astype(kind.dtype)


def _string(item: Any) -> bytes:
    if isinstance(item, dict):
        if is_base64(item):
            return bytes_of(item)
        raise invalid_argument(f"JSON Value: {shown(item)} not formatted correctly for base64 data")
    if not isinstance(item, str):
        raise type_error(item, "string")
    try:
        return item.encode()
    except UnicodeEncodeError:
        raise invalid_argument(
            "JSON Parse error: The surrogate pair in string is invalid"
        ) from None
