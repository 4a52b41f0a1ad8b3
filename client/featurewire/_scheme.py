"""The schemes that name vector spaces.

A name is a digest. Since the scheme `graph-1` it begins with its scheme's name; before, under
`weights-1`, it was 32 bare hexadecimal digits. Only names of one scheme can tell that two spaces
differ.
"""

from __future__ import annotations

import re

__all__ = ["other_schemes"]

_NAME = re.compile(r"(?:([a-z][a-z0-9-]*)-)?[0-9a-f]{32}")


def other_schemes(one: str | None, other: str | None) -> str:
    """Half a sentence to add where two spaces have different names under different schemes; else
    an empty text."""
    names = [_NAME.fullmatch(each) for each in (one or "", other or "")]
    first, second = ((name[1] or "weights-1") if name else None for name in names)
    if first is None or second is None or first == second:
        return ""
    return (
        f"; the schemes of the two names differ ({first} and {second}), so the spaces may still be "
        "the same: `featurewire rollout check` measures it"
    )
