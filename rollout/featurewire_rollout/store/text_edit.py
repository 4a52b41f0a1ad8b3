"""Finds fields in protobuf text format, so that an edit leaves every other character as it is."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""\#[^\n]*
      | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*'
      | [{}<>\[\]:;,]
      | [^\s{}<>\[\]:;,\#"']+""",
    re.VERBOSE,
)
_OPEN = {"{": "}", "<": ">"}


@dataclass(frozen=True)
class Field:
    """One field of a message, with its offsets in the text."""

    name: str
    start: int
    """Offset of its name."""
    end: int
    """Offset after its last character, including a separator."""
    body: tuple[int, int] | None
    """Offsets of a message's content between its braces; None for a scalar or a list."""
    value: str
    """Text of a scalar; empty for a message."""


def fields(text: str, start: int = 0, end: int | None = None) -> list[Field]:
    """The fields of the message with the body `text[start:end]`, in their order.

    The text must be valid. Raises `ValueError` for a layout that this parser does not know.
    """
    tokens = [
        (match.group(), match.start(), match.end())
        for match in _TOKEN.finditer(text, start, len(text) if end is None else end)
        if not match.group().startswith("#")
    ]
    found, at = [], 0
    while at < len(tokens):
        field, at = _field(tokens, at)
        found.append(field)
    return found


_Tokens = list[tuple[str, int, int]]


def _field(tokens: _Tokens, at: int) -> tuple[Field, int]:
    name, start, end = tokens[at]
    if not re.match(r"\w", name):
        raise ValueError(f"no field name: {name}")
    at += 1
    if _token(tokens, at) == ":":
        at += 1
    body, value = None, ""
    opening = _token(tokens, at)
    if opening in _OPEN:
        closing = _closing(tokens, at)
        body = (tokens[at][2], tokens[closing][1])
        at = closing + 1
    elif opening == "[":
        at = _closing(tokens, at) + 1
    else:
        value, at = opening, at + 1
        while value[:1] in "\"'" and _token(tokens, at)[:1] in ("'", '"'):
            value += tokens[at][0]
            at += 1
    end = tokens[at - 1][2]
    if _token(tokens, at) in (",", ";"):
        end = tokens[at][2]
        at += 1
    return Field(name, start, end, body, value), at


def _token(tokens: _Tokens, at: int) -> str:
    return tokens[at][0] if at < len(tokens) else ""


def _closing(tokens: _Tokens, at: int) -> int:
    depth = 0
    for position in range(at, len(tokens)):
        if tokens[position][0] in ("{", "<", "["):
            depth += 1
        elif tokens[position][0] in ("}", ">", "]"):
            depth -= 1
            if depth == 0:
                return position
    raise ValueError("a brace is not closed")
