"""Writes the manifest of a version, and checks it; `featurewire.manifest` reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from featurewire.manifest import FILE, ManifestError, read
from featurewire_exporter.errors import ExportError

EXTRAS = "assets.extra"
"""The folder of a version for files that do not belong to TensorFlow Serving."""


def dumps(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=2, sort_keys=True) + "\n"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def package_version() -> str:
    try:
        return metadata.version("featurewire-exporter")
    except metadata.PackageNotFoundError:
        return "unknown"


def read_manifest(version_directory: Path) -> dict[str, Any]:
    """The manifest of a published version. Raises `ExportError`."""
    path = version_directory / FILE
    try:
        manifest = read(version_directory)
    except ManifestError as error:
        raise ExportError(f"{path} {error}; export the version again") from error
    except OSError as error:
        raise ExportError(f"{path} cannot be read ({error}); export the version again") from error
    if manifest is None:
        raise ExportError(
            f"{version_directory} is not a version published by featurewire: it has no {FILE}; "
            "give the numbered folder below the base path"
        )
    fault = _fault(manifest)
    if fault:
        raise ExportError(f"{path} is not a manifest: {fault}; export the version again")
    return manifest


_FIELDS: dict[str, type] = {
    "featurewire_version": str,
    "tensorflow_version": str,
    "min_serving_version": str,
    "created_at": str,
    "module": dict,
    "dimension": int,
    "image_size": list,
    "precision": str,
    "vector_space": str,
    "preprocess": dict,
    "parity": dict,
    "allowed_batch_sizes": list,
}


def _fault(manifest: Mapping[str, Any]) -> str:
    """The first wrong field that the commands read, as text, or nothing."""
    for name, kind in _FIELDS.items():
        if not isinstance(manifest.get(name), kind):
            return f"{name!r} is missing, or not a {kind.__name__}"
    if not isinstance(manifest["module"].get("handle"), str):
        return "'module' has no 'handle'"
    if not isinstance(manifest["module"].get("stand_in"), bool):
        return "'module' has no 'stand_in'"
    size = manifest["image_size"]
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        return "'image_size' is not a height and a width"
    limits = (manifest["preprocess"].get(name) for name in ("max_pixels", "max_image_bytes"))
    if not all(isinstance(limit, int) for limit in limits):
        return "'preprocess' has no limits"
    if not isinstance(manifest.get("files", {}), dict):
        return "'files' is not a dict"
    figures = (manifest["parity"].get(name) for name in ("max_abs", "min_cosine"))
    if not all(isinstance(figure, (int, float)) for figure in figures):
        return "'parity' has no figures"
    return ""
