"""The manifest: the description that a published version carries.

An exported version has it in the file `FILE`, and serves it through the signature `manifest`. Older
releases may lack a field, and a field of an unexpected type counts as missing. These modules need
only the standard library.

    spaces    the version's vector spaces and bridges
    files     the digests of its files
    network   its networks for other engines
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["FILE", "ManifestError", "parse", "read"]

FILE = "assets.extra/featurewire.json"
"""Path of the manifest inside the version's folder."""


class ManifestError(ValueError):
    """The manifest cannot be used. The text completes a sentence: "the manifest {error}"."""


def parse(text: str | bytes) -> dict[str, Any]:
    """The manifest in a JSON text. Raises `ManifestError` if the text is not a JSON object."""
    try:
        manifest = json.loads(text)
    except ValueError as error:
        raise ManifestError(f"is not JSON: {error}") from error
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
