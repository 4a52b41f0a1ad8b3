"""Finds the parts of an exported version that a server without TensorFlow needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurewire._tfs.meta_graph_pb2 import SignatureDef
from featurewire.manifest import FILE, ManifestError, read, spaces
from featurewire.manifest.files import digest_of
from featurewire.manifest.network import has_vnni, int8, networks
from featurewire_server.engines.engine import Unsuitable
from featurewire_server.engines.saved_model import read_signatures

EMBED, PREPROCESS, NETWORK, MANIFEST = (
    "serving_default",
    "preprocess",
    "image_feature_vector",
    "manifest",
)
"""The signatures of every exported version. The others are its bridges."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The checked parts of a version."""

    manifest: Mapping[str, Any]
    signatures: Mapping[str, SignatureDef]
    network: Path
    """The model file that OpenVINO computes, from pixels to vectors."""
    bridges: Mapping[str, Path]
    """By signature, the model file from vectors to those of an older version."""


def read_exported(path: Path, tags: Sequence[str], *, in_int8: bool) -> Exported:
    """Find the parts of the version directory `path`, and check the digests of model files.

    `in_int8`: take the quantised network. Raises Unsuitable if a part is missing or was changed.
    """
    try:
        manifest = read(path)
    except (OSError, ManifestError) as error:
        raise Unsuitable(f"its manifest cannot be read ({error})") from None
    if manifest is None:
        raise Unsuitable(f"it has no manifest ({FILE})")
    bridges = [each.signature for each in spaces.bridges(manifest).values() if each.signature]
    return Exported(
        manifest=manifest,
        signatures=_signatures(path, tags, {EMBED, PREPROCESS, NETWORK, MANIFEST, *bridges}),
        network=_int8_network(path, manifest) if in_int8 else _graph(path, manifest, NETWORK),
        bridges={name: _graph(path, manifest, name) for name in bridges},
    )


def _signatures(path: Path, tags: Sequence[str], expected: set[str]) -> Mapping[str, SignatureDef]:
    try:
        signatures = read_signatures(path / "saved_model.pb", tags)
    except (OSError, ValueError):  # the TensorFlow engine reports the reason
        raise Unsuitable("its saved_model.pb cannot be read") from None
    if signatures is None:
        raise Unsuitable(f"it has no meta graph tagged {', '.join(tags)}")
    if expected != signatures.keys():
        different = ", ".join(sorted(expected ^ signatures.keys()))
        raise Unsuitable(f"its signatures are not those of its manifest ({different})")
    return signatures


def _graph(path: Path, manifest: Mapping[str, Any], signature: str) -> Path:
    """The graph that OpenVINO computes for a signature."""
    name = networks(manifest).get(signature)
    if name is None:
        raise Unsuitable("it was exported without its network for OpenVINO (export it again)")
    files = manifest.get("files")
    _require_intact(
        f"its file {name}",
        lambda: isinstance(files, dict) and digest_of(path / name) == files.get(name),
    )
    return path / name


def _int8_network(path: Path, manifest: Mapping[str, Any]) -> Path:
    """The quantised network. Raises Unsuitable also if this processor would compute it wrongly."""
    about = int8(manifest)
    if about is None:
        raise Unsuitable("it has no network in 8 bits (export it with --int8)")
    _require_intact("its network in 8 bits", lambda: about.is_intact(path))
    if not about.any_processor and not has_vnni():
        raise Unsuitable(
            "its network in 8 bits needs a processor with VNNI, which this one does not have "
            "(export it with --int8-any-processor)"
        )
    return path / about.network


def _require_intact(what: str, is_intact: Callable[[], bool]) -> None:
    try:
        intact = is_intact()
    except OSError as error:
        raise Unsuitable(f"{what} cannot be read ({error.strerror})") from None
    if not intact:
        raise Unsuitable(f"{what} does not match its digest in the manifest (SHA-256)")
