"""The steps of an export, in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf

from featurewire.manifest import FILE, spaces
from featurewire_exporter.bridge import fit
from featurewire_exporter.bridge.graph import build_map
from featurewire_exporter.config import ExportConfig
from featurewire_exporter.errors import PublishError
from featurewire_exporter.graph.fold import fold
from featurewire_exporter.graph.freeze import FrozenNetwork, freeze
from featurewire_exporter.graph.precision import lower
from featurewire_exporter.int8 import make, pictures
from featurewire_exporter.preprocess import MIN_TENSORFLOW, PreprocessConfig
from featurewire_exporter.progress import Progress
from featurewire_exporter.quality import parity
from featurewire_exporter.source.fetch import Source, fetch
from featurewire_exporter.source.module import Module, load_module
from featurewire_exporter.version import batching, digests, manifest, warmup
from featurewire_exporter.version.artifact import Artifact, Bridge
from featurewire_exporter.version.networks import write_networks
from featurewire_exporter.version.publish import Staging, describe
from featurewire_exporter.version.vector_space import vector_space, weights_digest


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published version."""

    path: Path
    manifest: dict[str, Any]
    bridges: tuple[fit.Bridge, ...] = ()
    warning: str | None = None
    """Why the module looks suspicious; None if it does not."""


def export_module(config: ExportConfig, progress: Progress) -> Published:
    """Export `config.module` and return the published version. Raises `ExportError`."""
    with Staging(config.base_path, version=config.version) as staging:
        try:
            return _export(config, staging, progress)
        except (OSError, tf.errors.ResourceExhaustedError) as error:
            if isinstance(error, OSError):
                raise PublishError(describe(error, staging.base_path)) from error
            if "OOM" in str(error) or "alloc" in str(error):
                raise MemoryError from error
            raise PublishError(
                f"the disk of {staging.base_path} is full; free some space"
            ) from error


def _export(config: ExportConfig, staging: Staging, progress: Progress) -> Published:
    found: pictures.Found | None = None
    if config.int8 is not None:
        make.require_packages()
        found = pictures.find(config.int8.images)
    source = fetch(config.module, staging.scratch, progress, kind=config.kind)
    progress.step("Loading the module")
    module = load_module(
        source.directory,
        handle=source.handle,
        image_size=config.image_size,
        signature=config.signature,
        input_range=config.preprocess.get("input_range", (0.0, 1.0)),
    )
    height, width = module.image_size
    preprocess = PreprocessConfig(height=height, width=width, **config.preprocess)
    progress.step("Freezing and folding its network")
    frozen = freeze(module)
    folded = fold(frozen)
    about = _manifest(config, source, module, frozen, preprocess)
    materials = fit.embed_both(config.bridge, about["vector_space"]) if config.bridge else None
    for activations in dict.fromkeys([config.precision, "float32"]):
        progress.step(f"Building the served graph in {config.precision}")
        keep = activations == "float32"
        network = lower(folded, config.precision, float32_activations=keep)
        artifact = Artifact(network, preprocess, dimension=module.dimension)
        artifact.write(staging.version, about)
        progress.step("Comparing it with the module")
        measured = parity.measure(
            staging.version, module, precision=config.precision, preprocess=about["preprocess"]
        )
        if measured.passed:
            break
    other = "" if config.precision == "float32" else "try --precision float32, or "
    measured.require(f"{other}report this module")
    # Random weights distinguish photos less than learned ones, even with the right range.
    warning = None if source.stand_in else measured.warning
    about |= {"activations": activations, "parity": measured.as_manifest()}
    bridges: list[fit.Bridge] = []
    maps: dict[str, Bridge] = {}
    if materials is not None:
        bridges = fit.fit_bridges(materials, staging.version, progress.step)
        maps = {bridge.signature: partial(build_map, bridge.map) for bridge in bridges}
        artifact = Artifact(network, preprocess, dimension=module.dimension, bridges=maps)
        about["vector_spaces"] = [_native(about), *(bridge.as_manifest() for bridge in bridges)]
    progress.step("Writing the version")
    about["networks"] = write_networks(
        staging.version, network, module.image_size, module.dimension, maps
    )
    artifact.write(staging.version, about)
    if materials is not None:
        fit.check_served(bridges, staging.version, materials)
    if config.int8 is not None and found is not None:
        int8 = make.add_int8(config.int8, found, folded, staging.version, staging.scratch, progress)
        about["int8"] = int8
        artifact.write(staging.version, about)
    _write_extras(staging.version, about, preprocess)
    about = digests.seal(staging.version, about, artifact.write)
    path = staging.publish()
    progress.end()
    return Published(path=path, manifest=about, bridges=tuple(bridges), warning=warning)


def _manifest(
    config: ExportConfig,
    source: Source,
    module: Module,
    frozen: FrozenNetwork,
    preprocess: PreprocessConfig,
) -> dict[str, Any]:
    settings = preprocess.as_manifest()
    return {
        "featurewire_version": manifest.package_version(),
        "module": {
            "handle": source.handle,
            "stand_in": source.stand_in,
            "format": module.format,
            "signature": module.signature,
        },
        "dimension": module.dimension,
        "vector_space": vector_space(frozen, settings),
        "weights_digest": weights_digest(frozen.constants()),
        "image_size": [preprocess.height, preprocess.width],
        "preprocess": settings,
        "precision": config.precision,
        "allowed_batch_sizes": batching.allowed_batch_sizes(config.max_batch_size),
        "created_at": manifest.now(),
        "tensorflow_version": tf.__version__,
        "min_serving_version": MIN_TENSORFLOW[preprocess.webp],
    }


def _native(about: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "vector_space": about["vector_space"],
        "signature": "serving_default",
        "dimension": about["dimension"],
        "bridged": False,
    }


def _write_extras(version: Path, about: Mapping[str, Any], preprocess: PreprocessConfig) -> None:
    sizes = about["allowed_batch_sizes"]
    (version / batching.FILE).write_text(batching.batching_params(sizes[-1]))
    extras = version / manifest.EXTRAS
    extras.mkdir(exist_ok=True)
    bridges = [each.signature for each in spaces.bridges(about).values() if each.signature]
    warmup.write_warmup(extras / warmup.FILE, sizes, preprocess, bridges=bridges)
    (version / FILE).write_text(manifest.dumps(about))
