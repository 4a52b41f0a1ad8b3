"""Reads the JSON document of a request, which may be large, like TensorFlow Serving."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Callable
from typing import Any

import orjson

from featurewire_server.common.errors import ServingError, invalid_argument

LARGE_BYTES = 4 << 20
"""Maximum size of a document that is parsed in one call. A parser blocks all other threads until
it is done, also if it runs in a worker thread. orjson takes 0.02 s for 4 MiB of numbers, but 10 s
for 32 MiB of empty lists, most of it in the garbage collector."""
OUTER_LEVELS = 3
"""Number of outer levels that we parse in Python, item by item, if a document is larger. This takes
longer but lets other threads run in between."""


class RepeatedKeys(dict[str, Any]):
    """An object with repeated keys.

    The first value of a key counts, as in TensorFlow Serving, except for the features of an
    example.
    """

    last: dict[str, Any]
    """The object with the last value of each key."""


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    found = RepeatedKeys(reversed(pairs))
    found.last = members
    return found


_CONSTANTS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_decoder = json.JSONDecoder(object_pairs_hook=_object_of, parse_constant=_CONSTANTS.__getitem__)
_scan: Callable[[str, int], tuple[Any, int]] = _decoder.scan_once  # type: ignore[attr-defined]
_skip = re.compile(r"[ \t\n\r]*").match
_word = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|(?P<minus>-?)(?P<word>Inf(?:inity)?|NaN)', re.DOTALL)
"""Matches a string, or a word that stands for a number."""


def parse(body: bytes) -> dict[str, Any]:
    """The object at the start of `body`.

    Ignores a byte order mark and all text after the object. NaN, Inf and Infinity are numbers.
    Raises INVALID_ARGUMENT if `body` does not start with an object.
    """
    body = body.removeprefix(codecs.BOM_UTF8)
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    value = _fast(body) if len(body) <= LARGE_BYTES else None
    if value is None:
        value = _careful(body)
    if not isinstance(value, dict):
        raise invalid_argument(f"JSON Value: {shown(value)} Is not object")
    return value


def _fast(body: bytes) -> Any:
    """The document as read by orjson, or None.

    None if orjson refuses the document, because TensorFlow Serving may accept it. Also None if a
    key may be repeated, because orjson keeps the last value.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    # Every member has a colon. Further colons come from strings or from repeated keys.
    colons, level = body.count(b":"), [value]
    while level and colons > 0:
        colons -= sum(len(each) for each in level if isinstance(each, dict))
        level = [inner for each in level for inner in _inner(each)] if colons else []
    return value if colons == 0 else None


def _inner(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _careful(body: bytes) -> Any:
    try:
        text = body.decode()
        try:
            return _first_value(text)
        except json.JSONDecodeError as error:
            # Python's parser does not know Inf and -NaN.
            if not text.startswith(("Inf", "-Inf", "-NaN"), error.pos):
                raise
            return _first_value(_word.sub(_spelt_out, text))
    except RecursionError:
        raise invalid_argument("JSON Parse error: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise invalid_argument(f"JSON Parse error: {error.msg} at offset: {error.pos}") from None
    except ValueError as error:  # not UTF-8, or a number of thousands of digits
        raise invalid_argument(f"JSON Parse error: {error}") from None


def _spelt_out(match: re.Match[str]) -> str:
    if match["word"] is None:
        return match[0]
    return "NaN" if match["word"] == "NaN" else f"{match['minus']}Infinity"


def footprint(body: bytes) -> int:
    """Estimated bytes that the parsed `body` takes in addition to its length.

    Memory limits need this, because a list of empty lists grows thirtyfold when it is parsed.
    """
    return 40 * body.count(b",") + 90 * (body.count(b"[") + body.count(b"{"))


def require_in_range(number: float) -> None:
    """Raise INVALID_ARGUMENT for digits that are beyond the range of a double.

    The words `Infinity` and `-Infinity` are allowed.
    """
    try:
        finite = math.isfinite(number)
    except OverflowError:  # an integer of more than 308 digits
        finite = False
    if not finite and not any(number is constant for constant in _CONSTANTS.values()):
        raise invalid_argument("JSON Parse error: Number too big to be stored in double.")


def shown(value: object) -> str:
    """`value` as JSON for an error text, truncated."""
    try:
        text = json.dumps(value)
    except (RecursionError, ValueError):
        return "(nested too deeply)"
    return text if len(text) <= 200 else f"{text[:200]}..."


def type_error(value: object, expected: str) -> ServingError:
    """An error with TensorFlow Serving's text for a JSON value of the wrong type."""
    return invalid_argument(
        f"JSON Value: {shown(value)} Type: {type_name(value)} is not of expected type: {expected}"
    )


def type_name(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "Null", True: "True", False: "False"}[value]
    names = {dict: "Object", list: "Array", str: "String"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "Number")


def _first_value(text: str, levels: int | None = None) -> Any:
    """The value at the start of `text`. Raises json.JSONDecodeError.

    The outer levels of a large text are parsed in steps, so that other threads can run.
    """
    if levels is None:
        levels = OUTER_LEVELS if len(text) > LARGE_BYTES else 0
    try:
        return _value(text, _after(text, 0), levels)[0]
    except (StopIteration, IndexError) as stop:
        at = stop.value if isinstance(stop, StopIteration) else len(text)
        raise json.JSONDecodeError("Expecting value", text, at) from None


def _after(text: str, index: int) -> int:
    return _skip(text, index).end()  # type: ignore[union-attr]


def _value(text: str, index: int, levels: int) -> tuple[Any, int]:
    if levels and text[index] == "[":
        return _list(text, index, levels - 1)
    if levels and text[index] == "{":
        return _object(text, index, levels - 1)
    return _scan(text, index)


def _list(text: str, index: int, levels: int) -> tuple[list[Any], int]:
    items: list[Any] = []
    index = _after(text, index + 1)
    if text[index] == "]":
        return items, index + 1
    while True:
        item, index = _value(text, index, levels)
        items.append(item)
        index = _after(text, index)
        if text[index] == "]":
            return items, index + 1
        index = _comma(text, index)


def _object(text: str, index: int, levels: int) -> tuple[dict[str, Any], int]:
    pairs: list[tuple[str, Any]] = []
    index = _after(text, index + 1)
    if text[index] == "}":
        return {}, index + 1
    while True:
        if text[index] != '"':
            raise json.JSONDecodeError("Expecting property name", text, index)
        key, index = _scan(text, index)
        index = _after(text, index)
        if text[index] != ":":
            raise json.JSONDecodeError("Expecting ':' delimiter", text, index)
        value, index = _value(text, _after(text, index + 1), levels)
        pairs.append((key, value))
        index = _after(text, index)
        if text[index] == "}":
            return _object_of(pairs), index + 1
        index = _comma(text, index)


def _comma(text: str, index: int) -> int:
    if text[index] != ",":
        raise json.JSONDecodeError("Expecting ',' delimiter", text, index)
    return _after(text, index + 1)
