"""Measures the parity of a published version with a module again."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from featurewire.manifest import FILE
from featurewire.manifest.files import changed_file
from featurewire.manifest.spaces import bridges, scheme_of
from featurewire_exporter.config import PRECISIONS
from featurewire_exporter.errors import ExportError, ParityError, one_line
from featurewire_exporter.graph.freeze import freeze
from featurewire_exporter.progress import Progress
from featurewire_exporter.quality import parity
from featurewire_exporter.source.fetch import fetch
from featurewire_exporter.source.module import load_module
from featurewire_exporter.version import manifest
from featurewire_exporter.version.artifact import ArtifactSession
from featurewire_exporter.version.vector_space import vector_space
from featurewire_exporter.version.warmup import count_records


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of a verification."""

    path: Path
    parity: parity.Parity
    vector_space: str
    """The name in the version's manifest."""
    expected_vector_space: str
    """The name that the module gives, with the version's preprocessing."""

    @property
    def same_space(self) -> bool:
        return self.vector_space == self.expected_vector_space

    def as_dict(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "parity": self.parity.as_manifest(),
            "vector_space": self.vector_space,
            "expected_vector_space": self.expected_vector_space,
            "passed": self.parity.passed and self.same_space,
        }

    def text(self) -> str:
        verdict = "matches" if self.parity.passed and self.same_space else "does not match"
        return (
            f"{self.path} {verdict} the module: {self.parity.figures} "
            f"({self.parity.limit}), vector space {self.vector_space} "
            f"({self.expected_vector_space} expected)"
        )

    def require(self) -> None:
        """Raises `ParityError` on a mismatch."""
        self.parity.require("name the module that the version was made from")
        if not self.same_space:
            raise ParityError(
                f"{self.path} says vector space {self.vector_space}, the module gives "
                f"{self.expected_vector_space}; the version was made from another module or "
                "its manifest was changed"
            )


def verify_version(
    version_directory: Path, handle: str, progress: Progress, *, kind: str = "auto"
) -> Report:
    """Compare a published version with the module `handle`. Raises `ExportError`."""
    about = manifest.read_manifest(version_directory)
    _check_files(version_directory, about)
    with tempfile.TemporaryDirectory(prefix="featurewire-verify-") as scratch:
        source = fetch(handle, Path(scratch), progress, kind=kind)
        progress.step("Loading the module")
        height, width = about["image_size"]
        low, high = about["preprocess"].get("input_range", (0.0, 1.0))
        module = load_module(
            source.directory,
            handle=source.handle,
            image_size=(height, width),
            signature=about["module"].get("signature"),
            input_range=(low, high),
            made_from=True,
        )
        progress.step("Comparing the version with it")
        try:
            measured = parity.measure(
                version_directory,
                module,
                precision=about["precision"],
                preprocess=about["preprocess"],
            )
        except (tf.errors.OpError, OSError, ValueError, KeyError) as error:
            raise ExportError(
                f"{version_directory} cannot be run ({one_line(error)}); export it again"
            ) from error
        frozen = freeze(module)
        progress.end()
    space = about["vector_space"]
    return Report(
        path=version_directory,
        parity=measured,
        vector_space=space,
        expected_vector_space=vector_space(frozen, about["preprocess"], scheme=scheme_of(space)),
    )


def _check_files(version_directory: Path, about: dict[str, Any]) -> None:
    """Compare the other files of a version with its graph. Raises `ExportError`."""
    try:
        with ArtifactSession(version_directory) as session:
            (inside,) = session.run("manifest", request=np.array([b""], object))["manifest"]
    except (tf.errors.OpError, OSError, ValueError, KeyError) as error:
        raise ExportError(
            f"{version_directory} cannot be run ({one_line(error)}); export it again"
        ) from error
    if json.loads(inside) != about:
        raise ExportError(
            f"{version_directory}/{FILE} does not match the version's own graph: one of them was "
            "changed; export the version again"
        )
    if about["precision"] not in PRECISIONS:
        raise ExportError(
            f"{version_directory} says precision {about['precision']!r}, not one of "
            f"{', '.join(PRECISIONS)}; export the version again"
        )
    expected = len(about["allowed_batch_sizes"]) + 1 + len(bridges(about))
    found = count_records(version_directory)
    if found != expected:
        raise ExportError(
            f"{version_directory} has {found} warm-up records instead of {expected}; "
            "export the version again"
        )
    if (name := changed_file(version_directory, about)) is not None:
        raise ExportError(
            f"{version_directory}/{name} does not match its digest in the manifest (SHA-256); "
            "copy or export the version again"
        )
