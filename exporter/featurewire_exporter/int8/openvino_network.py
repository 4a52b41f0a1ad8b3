"""Reads, compiles and writes networks in OpenVINO.

One `Core` serves the whole process. The first network that a `Core` compiles gives its thread a
signal stack, which the `Core` takes back when it is deleted. If two are deleted in the order of
their creation, the thread keeps the stack of the first, which is freed memory: Ctrl-C would end the
process with a segmentation fault (OpenVINO 2026.4; seen with AMX).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from featurewire_exporter.graph.freeze import FrozenNetwork

_CORE = ov.Core()
_BATCH = 16


def read(network: FrozenNetwork, size: tuple[int, int], folder: Path) -> ov.Model:
    """The float32 network in OpenVINO, for any number of images. Raises RuntimeError."""
    file = folder / "network.pb"
    file.write_bytes(network.serialized([*size, 3]))
    model = _CORE.read_model(file)
    file.unlink()
    return model


def compiled(model: ov.Model) -> Any:
    """`model` on every core; called with images, float32 `[N, height, width, 3]`."""
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    return _CORE.compile_model(model, "CPU", settings)


def vectors(model: ov.Model, images: np.ndarray) -> np.ndarray:
    """float32 `[..., dimension]` for float32 `[..., height, width, 3]`."""
    network, flat = compiled(model), images.reshape(-1, *images.shape[-3:])
    starts = range(0, len(flat), _BATCH)
    found = [network(flat[start : start + _BATCH])[0].copy() for start in starts]
    return np.concatenate(found).reshape(*images.shape[:-3], -1)


def save(model: Any, path: Path) -> None:
    """Write OpenVINO's own format: `path`, which ends in .xml, and a .bin next to it."""
    ov.save_model(model, path, compress_to_fp16=False)
