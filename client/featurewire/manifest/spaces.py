"""The vector spaces that a manifest names.

Vectors of two versions can be compared only if they are in the same space. A version has its own
space. It may also have bridges: signatures that map its vectors into the space of an older version.

The name of a space is a digest. Since the scheme `graph-1`, the name begins with the scheme; under
the earlier scheme `weights-1`, it was only 32 hexadecimal digits. Two names of different schemes do
not show whether their spaces differ.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

_NAME = re.compile(r"(?:([a-z][a-z0-9-]*)-)?[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True)
class Bridge:
    """A signature that gives vectors in the space of an older version."""

    vector_space: str
    """The older version's vector space."""
    signature: str | None = None
    dimension: int | None = None
    module: str | None = None
    """The handle of the older version's module."""
    recall_at_1: float | None = None
    """The fraction of recall@1 that the bridge kept in its test at export."""
    recall_at_10: float | None = None
    index: int | None = None
    """Number of images in the index of that test."""


def vector_space(manifest: Mapping[str, Any] | None) -> str | None:
    """The version's own space; None without a manifest, or if the manifest does not name it."""
    return _kind((manifest or {}).get("vector_space"), str) or None


def bridges(manifest: Mapping[str, Any] | None) -> dict[str, Bridge]:
    """The version's bridges, by target space."""
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
    """The scheme of a space's name; None if the text is not such a name."""
    name = _NAME.fullmatch(space or "")
    return (name[1] or "weights-1") if name else None


def other_schemes(one: str | None, other: str | None) -> str:
    """A clause for an error text if two names are of different schemes; else ''."""
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
