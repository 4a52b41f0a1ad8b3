"""The vector spaces that a manifest names.

Vectors of two versions compare only if they are of one space. A version has its own space, and may
have bridges: signatures whose vectors are carried over into the spaces of older versions.

The name of a space is a digest. Since the scheme `graph-1` it begins with the name of its scheme;
before, under `weights-1`, it was 32 bare hexadecimal digits. Two names under different schemes
cannot tell whether their spaces differ.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["Bridge", "bridges", "other_schemes", "scheme_of", "vector_space"]

T = TypeVar("T")

_NAME = re.compile(r"(?:([a-z][a-z0-9-]*)-)?[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True)
class Bridge:
    """A signature with vectors in the space of an older version."""

    vector_space: str
    """The older version's."""
    signature: str | None = None
    dimension: int | None = None
    module: str | None = None
    """The handle of the older version's module."""
    recall_at_1: float | None = None
    """The share of recall@1 that the bridge kept when it was tested at export."""
    recall_at_10: float | None = None
    index: int | None = None
    """How many pictures the index of that test had."""


def vector_space(manifest: Mapping[str, Any] | None) -> str | None:
    """The version's own space; None where there is no manifest, or it names none."""
    return _kind((manifest or {}).get("vector_space"), str) or None


def bridges(manifest: Mapping[str, Any] | None) -> dict[str, Bridge]:
    """The version's bridges, by the space that they lead to."""
    listed = (manifest or {}).get("vector_spaces")
    found = {}
    for each in listed if isinstance(listed, list) else []:
        if not isinstance(each, dict) or each.get("bridged") is not True:
            continue
        space, kept = _kind(each.get("vector_space"), str), each.get("retention")
        kept = kept if isinstance(kept, dict) else {}
        if space:
            found[space] = Bridge(
                vector_space=space,
                signature=_kind(each.get("signature"), str),
                dimension=_kind(each.get("dimension"), int),
                module=_kind(each.get("module"), str),
                recall_at_1=_number(kept.get("recall_at_1")),
                recall_at_10=_number(kept.get("recall_at_10")),
                index=_kind(kept.get("index"), int),
            )
    return found


def scheme_of(space: str | None) -> str | None:
    """The scheme that a space was named under; None for a text that is not such a name."""
    name = _NAME.fullmatch(space or "")
    return (name[1] or "weights-1") if name else None


def other_schemes(one: str | None, other: str | None) -> str:
    """Half a sentence to add where two different names are of different schemes; else ''."""
    first, second = scheme_of(one), scheme_of(other)
    if first is None or second is None or first == second:
        return ""
    return (
        f"; the schemes of the two names differ ({first} and {second}), so the spaces may still be "
        "the same: `featurewire rollout check` measures it"
    )


def _kind(value: object, kind: type[T]) -> T | None:
    return value if isinstance(value, kind) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
