"""Maps a method and path to a resource of TensorFlow Serving's REST API."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from featurewire._tfs.model_pb2 import ModelSpec
from featurewire_server.common.errors import ServingError, invalid_argument, not_found

_MODEL = (
    r"/v1/models/(?P<name>[^/:]+)"
    r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
)
_PATHS = {
    "POST": re.compile(_MODEL + r":(?P<verb>classify|regress|predict)", re.IGNORECASE),
    "GET": re.compile(_MODEL + r"(?:/(?P<verb>metadata))?", re.IGNORECASE),
}
VERBS = ("predict", "classify", "regress")
_MAX_VERSION = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class Route:
    """A resource: `verb` is `predict`, `classify`, `regress`, `status` or `metadata`."""

    verb: str
    name: str
    version: int | None = None
    label: str | None = None

    def model_spec(self, signature_name: str = "") -> ModelSpec:
        spec = ModelSpec(name=self.name, signature_name=signature_name)
        if self.version is not None:
            spec.version.value = self.version
        if self.label is not None:
            spec.version_label = self.label
        return spec


def malformed(method: str, path: str) -> ServingError:
    """The error for an unknown path, with TensorFlow Serving's text.

    INVALID_ARGUMENT for paths under `/v1/`, NOT_FOUND for others.
    """
    message = f"Malformed request: {method} {path}"
    inside = path.lower().startswith("/v1/")
    return invalid_argument(message) if inside else not_found(message)


def find(method: str, path: str) -> Route:
    """The resource at `path`, which is still percent-encoded. Raises ServingError.

    Same rules as TensorFlow Serving: a query counts as part of the path, the path matches in any
    letter case, but `predict`, `classify`, `regress` and `metadata` must be in lower case.
    """
    if method == "GET" and path.lower() in ("/v1/models", "/v1/models/"):
        raise invalid_argument("Missing model name in request.")
    pattern = _PATHS.get(method)
    match = pattern.fullmatch(path) if pattern else None
    verb = match["verb"] if match else None
    if match is None or (method == "POST" and verb not in VERBS):
        raise malformed(method, path)
    version, label = match["version"], match["label"]
    if version is not None and int(version[:20]) > _MAX_VERSION:
        raise invalid_argument(f"Failed to convert version: {version[:100]} to numeric.")
    return Route(
        verb=verb if verb in VERBS or verb == "metadata" else "status",
        name=unquote(match["name"]),
        version=None if version is None else int(version),
        label=None if label is None else unquote(label),
    )
