"""Reads the tensorflow.Examples of Classify and Regress requests from JSON."""

from __future__ import annotations

from typing import Any

from featurewire_server._tfs.example_pb2 import Example
from featurewire_server._tfs.feature_pb2 import Feature
from featurewire_server._tfs.input_pb2 import Input
from featurewire_server.common.errors import invalid_argument
from featurewire_server.transport.rest.decode import bytes_of, is_base64
from featurewire_server.transport.rest.document import (
    RepeatedKeys,
    require_in_range,
    shown,
    type_name,
)

_KIND_NAMES = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}
_MAX_FLOAT = 3.4028234663852886e38


def read(document: dict[str, Any]) -> Input:
    """The document's `examples` and their optional shared `context`. Raises INVALID_ARGUMENT."""
    result = Input()
    examples = result.example_list.examples
    if "context" in document:
        result.example_list_with_context.context.CopyFrom(_example(document["context"]))
        examples = result.example_list_with_context.examples
    if "examples" not in document:
        raise invalid_argument(
            f"JSON Value: {shown(document)} When method is classify, key 'examples' is expected "
            "and was not found"
        )
    values = document["examples"]
    if not isinstance(values, list):
        raise invalid_argument(
            f"JSON Value: {shown(document)} Expecting 'examples' value to be an list/array"
        )
    if not values:
        raise invalid_argument(f"JSON Value: {shown(document)} 'examples' value is an empty array")
    examples.extend(_example(value) for value in values)
    return result


def _example(value: Any) -> Example:
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {type_name(value)}")
    example = Example()
    members = value.last if isinstance(value, RepeatedKeys) else value
    for name, content in members.items():
        feature = example.features.feature[name]
        for item in content if isinstance(content, list) else [content]:
            _add(name, feature, item)
    return example


def _add(name: str, feature: Feature, item: Any) -> None:
    kind, value = _typed(name, item)
    present = feature.WhichOneof("kind")
    if present not in (None, kind):
        raise invalid_argument(
            f"Unexpected element type in feature: {name} expecting type: {_KIND_NAMES[present]}"
        )
    getattr(feature, kind).value.append(value)


def _typed(name: str, item: Any) -> tuple[str, Any]:
    """The field of Feature for `item`, and `item` converted for that field."""
    if isinstance(item, int) and 2**63 <= item < 2**64:
        raise invalid_argument(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
    if isinstance(item, int) and -(2**63) <= item < 2**63:  # also true and false
        return "int64_list", int(item)
    if isinstance(item, int | float):
        require_in_range(item)
        return "float_list", item if abs(item) <= _MAX_FLOAT else item * float("inf")
    if isinstance(item, str):
        return "bytes_list", item.encode(errors="surrogatepass")
    if is_base64(item):
        return "bytes_list", bytes_of(item)
    raise invalid_argument(
        f"Feature: {name} has element with unexpected JSON type: {type_name(item)}"
    )
