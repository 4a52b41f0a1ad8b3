"""The manifest: what a published version says of itself.

An exported version has it in the file `FILE`, and serves it through the signature `manifest`. An
older release may have left a field out; a field of an unexpected type counts as left out, too.
These modules need nothing but the standard library.

    spaces    the vector spaces of a version, and its bridges
    files     the digests of its files
    network   how another engine splits it, and its network in 8 bits
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["FILE", "ManifestError", "parse", "read"]

FILE = "assets.extra/featurewire.json"
"""Within the version's folder."""


class ManifestError(ValueError):
    """The manifest cannot be used. The text completes a sentence: "the manifest {error}"."""


def parse(text: str | bytes) -> dict[str, Any]:
    """Raise `ManifestError` for a text that is not a JSON object."""
    try:
        manifest = json.loads(text)
    except ValueError as exc:
        raise ManifestError(f"is not JSON: {exc}") from exc
    if not isinstance(manifest, dict):
        raise ManifestError("is not a JSON object")
    return manifest


def read(version: Path) -> dict[str, Any] | None:
    """The manifest of the version in this folder; None for a version without one.

    Raises `ManifestError`, and `OSError` for a file that cannot be read.
    """
    try:
        text = (version / FILE).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return parse(text)
