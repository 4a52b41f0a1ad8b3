"""Finds the first setting whose network passes the gate, and adds that network to the version."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from featurewire.manifest.network import has_vnni, network_digest
from featurewire_exporter.errors import ExportError, ParityError, one_line
from featurewire_exporter.graph.freeze import FrozenNetwork
from featurewire_exporter.int8.config import Int8Config
from featurewire_exporter.int8.gate import measure
from featurewire_exporter.int8.pictures import FEW, Found, Pictures, preprocess_pictures
from featurewire_exporter.progress import Progress
from featurewire_exporter.version.manifest import EXTRAS

NETWORK = f"{EXTRAS}/int8.xml"
"""Path within the version. The weights are in a .bin next to it."""


def require_packages() -> None:
    """Raises `ExportError` if `nncf` or `openvino` is not installed."""
    missing = [name for name in ("nncf", "openvino") if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(
            f"--int8 needs {' and '.join(missing)}: pip install 'featurewire-exporter[int8]'"
        )


def add_int8(
    config: Int8Config,
    found: Found,
    network: FrozenNetwork,
    version: Path,
    scratch: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Quantise `network`, write it into `version`, which can be run, and return its manifest entry.

    Raises `ParityError` with the numbers if no setting passes the gate, and `ExportError` if the
    pictures cannot show a loss.
    """
    progress.step("Reading pictures for 8 bits")
    pictures = preprocess_pictures(found, version)
    from featurewire_exporter.int8 import openvino_network, quantise

    height, width = pictures.judged.shape[2:4]
    try:
        model = openvino_network.read(network, (height, width), scratch)
    except RuntimeError as error:
        raise ExportError(f"OpenVINO cannot read this network ({one_line(error)})") from error
    progress.step("Computing float32 vectors of the test pictures")
    exact = openvino_network.vectors(model, pictures.judged)
    measure(exact, exact).require_telling(config)
    progress.step("Recording the inputs of each layer")
    quantiser = quantise.Quantiser(model, pictures.calibration)
    tried = []
    any_processor = config.any_processor or not has_vnni()
    for setting in quantise.SETTINGS:
        if any_processor and not setting.overflow_fix:
            continue
        progress.step(f"Quantising to 8 bits: {setting.name}")
        quantised = quantiser.quantise(setting)
        measured = measure(exact, openvino_network.vectors(quantised, pictures.judged))
        tried.append((setting.name, measured))
        progress.result(f"In 8 bits, {setting.name}: {measured.text()}")
        if not measured.passes(config):
            continue
        target = version / NETWORK
        target.parent.mkdir(exist_ok=True)
        openvino_network.save(quantised, target)
        return {
            "network": NETWORK,
            "digest": network_digest(target),
            "setting": setting.name,
            "any_processor": setting.overflow_fix,
            "calibration": {"images": len(pictures.calibration), "source": pictures.source},
            "gate": measured.as_manifest(),
            **quantise.versions(),
        }
    raise ParityError(_refusal(config, pictures, tried))


def _refusal(config: Int8Config, pictures: Pictures, tried: list[tuple[str, Any]]) -> str:
    name, best = max(tried, key=lambda each: each[1].margin(config))
    few = len(pictures.calibration) < FEW * 2
    return (
        f"no setting for 8 bits passes: the nearest is {name!r} with {best.text()}, where cosine "
        f">= {config.min_cosine:g}, overlap@10 >= {config.min_overlap_at_10:g} and recall@1 at "
        f"most {config.max_recall_loss:g} below float32's are needed; nothing was published; "
        + ("give --calibration-images more pictures, or " if few else "")
        + "lower --int8-min-agreement if your search can do with less, or leave --int8 out"
    )
