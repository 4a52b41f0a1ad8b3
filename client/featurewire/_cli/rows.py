"""Rows of an output as lines of JSON: the origin of a vector, and in `.jsonl` the vector itself.

Each line is plain JSON. The vector comes last, so that the fields before it can be parsed without
parsing the vector.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]

_VECTOR = b', "vector": ['


class NotARow(ValueError):
    """The line was not written by `featurewire embed`, or not for this kind of output."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The model and version that made a vector. Vectors compare only within one vector space."""

    model: str
    version: int
    vector_space: str | None
    """The vector space that the version's manifest names; None if unknown."""

    def comparable(self, other: Origin) -> bool:
        if self.vector_space is not None and other.vector_space is not None:
            return self.vector_space == other.vector_space
        return (self.model, self.version) == (other.model, other.version)

    def __str__(self) -> str:
        space = f" (vector space {self.vector_space})" if self.vector_space else ""
        return f"version {self.version} of {self.model}{space}"


class Row(NamedTuple):
    path: str
    origin: Origin
    vector: Vector | None = None
    """None if the row was read without its vector."""


def encode(row: int, path: str, origin: Origin, vector: Vector | None = None) -> bytes:
    """The line of row number `row`, including its newline."""
    fields: dict[str, object] = {"row": row, "path": path, "model": origin.model}
    fields["version"] = origin.version
    if origin.vector_space is not None:
        fields["vector_space"] = origin.vector_space
    line = json.dumps(fields, ensure_ascii=False).encode()
    if vector is None:
        return line + b"\n"
    return b"".join((line[:-1], _VECTOR, _numbers(vector.tolist()).encode(), b"]}\n"))


def decode(line: bytes, *, vector: bool) -> tuple[str, Origin]:
    """The path and the origin in a line from `encode`. `vector`: whether it must have a vector.

    Raises `NotARow` for any other line, also for an incomplete one.
    """
    head, found, _ = line.partition(_VECTOR)
    if bool(found) != vector or not line.endswith(b"]}\n" if vector else b"}\n"):
        raise NotARow
    try:
        fields = json.loads(head + b"}" if vector else line)
        path, model, version = fields["path"], fields["model"], fields["version"]
        space = fields.get("vector_space")
    except (ValueError, TypeError, KeyError, AttributeError):
        raise NotARow from None
    if not isinstance(path, str) or not isinstance(model, str) or not isinstance(version, int):
        raise NotARow
    return path, Origin(model=model, version=version, vector_space=space)


def vector_in(line: bytes) -> Vector:
    """The vector in a line that `decode` accepted. Raises `NotARow`."""
    try:
        return np.array(json.loads(line)["vector"], np.float32)
    except (ValueError, TypeError, KeyError):
        raise NotARow from None


def _numbers(values: Sequence[float]) -> str:
    """The values as JSON numbers with nine digits, which restore every float32 exactly.

    Needs no case for NaN or infinity, because the client's vectors are finite.
    """
    return ("%.9g," * len(values) % tuple(values))[:-1]
