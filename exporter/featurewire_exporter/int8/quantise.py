"""A frozen network to 8 bits, by NNCF's post-training quantisation, run by OpenVINO.

Importing this module imports both.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow.core.framework import graph_pb2

from featurewire_exporter.freeze import FrozenNetwork
from featurewire_exporter.int8.judge import Judge

# It posts each use to a statistics host; both libraries work without it.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import nncf  # noqa: E402
import openvino as ov  # noqa: E402
from nncf.quantization.advanced_parameters import (  # noqa: E402
    AdvancedAccuracyRestorerParameters,
    AdvancedQuantizationParameters,
    OverflowFix,
)

_ACCURATE_BIAS_PICTURES = 64
"""NNCF keeps what every layer gets of a fifth of them: with 300, a network of 244 convolutions
takes more than 12 GB."""
_RANKING = AdvancedAccuracyRestorerParameters(
    ranking_subset_size=6, max_num_iterations=16, num_ranking_workers=1
)
"""Layers are ranked by the pictures that suffer most, and so many at most go back to float."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One way to quantise."""

    name: str
    overflow_fix: bool = False
    """Weights take 7 bits, so that sums of two products fit 16: processors without VNNI need it."""
    accurate_bias: bool = False
    """Biases are corrected layer by layer with what the quantised layers before them give."""
    float_layers: int = 0
    """So many convolutions at each end stay in float32."""
    accuracy_control: bool = False
    """Then layers go back to float32, those that cost most first, until the gate passes."""

    @property
    def needs_vnni(self) -> bool:
        """Whether saturation decides, which layers in float do not mend, without VNNI."""
        return self.float_layers > 0 and not self.overflow_fix


SETTINGS = (
    Setting(name="plain"),
    Setting(name="plain, first and last 2 layers in float", float_layers=2),
    Setting(name="plain, first and last 4 layers in float", float_layers=4),
    Setting(name="plain, first and last 8 layers in float", float_layers=8),
    Setting(name="overflow fix", overflow_fix=True),
    Setting(name="accurate bias correction", overflow_fix=True, accurate_bias=True),
    Setting(name="first and last 2 layers in float", overflow_fix=True, float_layers=2),
    Setting(name="first and last 4 layers in float", overflow_fix=True, float_layers=4),
    Setting(name="first and last 8 layers in float", overflow_fix=True, float_layers=8),
    Setting(
        name="first and last 8 layers in float, accurate bias correction",
        overflow_fix=True,
        accurate_bias=True,
        float_layers=8,
    ),
    Setting(
        name="first and last 8 layers in float, accuracy control",
        overflow_fix=True,
        float_layers=8,
        accuracy_control=True,
    ),
)
"""Those for processors with VNNI first, and of each kind the fastest first."""


def read(network: FrozenNetwork, size: tuple[int, int], folder: Path) -> ov.Model:
    """The float32 network in OpenVINO, for any number of images. Raises RuntimeError."""
    graph = graph_pb2.GraphDef()
    graph.CopyFrom(network.graph_def)
    for node in graph.node:
        if node.name == network.input:
            node.attr["shape"].shape.unknown_rank = False
            del node.attr["shape"].shape.dim[:]
            for length in (-1, *size, 3):
                node.attr["shape"].shape.dim.add(size=length)
    file = folder / "network.pb"
    file.write_bytes(graph.SerializeToString())
    model = ov.Core().read_model(file)
    file.unlink()
    return model


def quantise(model: ov.Model, setting: Setting, images: np.ndarray, judge: Judge) -> ov.Model:
    """`model` in 8 bits, calibrated with `images`, float32 `[N, height, width, 3]`."""
    ignored = _ends(model, setting.float_layers)
    if setting.accurate_bias:
        images = images[:: -(-len(images) // _ACCURATE_BIAS_PICTURES)]
    dataset = nncf.Dataset([image[np.newaxis] for image in images])
    settings = {
        "preset": nncf.QuantizationPreset.MIXED,
        "subset_size": len(images),
        "fast_bias_correction": not setting.accurate_bias,
        "ignored_scope": nncf.IgnoredScope(names=ignored) if ignored else None,
    }
    advanced = AdvancedQuantizationParameters(
        overflow_fix=OverflowFix.ENABLE if setting.overflow_fix else OverflowFix.DISABLE
    )
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        if not setting.accuracy_control:
            return nncf.quantize(model, dataset, advanced_parameters=advanced, **settings)
        # The judge takes fewer pictures than it has for a ranking.
        fewer = min(_RANKING.ranking_subset_size, len(judge) // 2)
        return nncf.quantize_with_accuracy_control(
            model,
            dataset,
            nncf.Dataset(range(len(judge))),
            judge.validate,
            max_drop=0.0,
            advanced_quantization_parameters=advanced,
            advanced_accuracy_restorer_parameters=replace(_RANKING, ranking_subset_size=fewer),
            **settings,
        )


def compiled(model: ov.Model) -> Any:
    """`model` on every core; called with images, float32 `[N, height, width, 3]`."""
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    return ov.Core().compile_model(model, "CPU", settings)


def save(model: Any, path: Path) -> None:
    """Write OpenVINO's own format: `path`, which ends in .xml, and a .bin beside it."""
    ov.save_model(model, path, compress_to_fp16=False)


def versions() -> dict[str, str]:
    return {"nncf": nncf.__version__, "openvino": ov.__version__}


def _ends(model: ov.Model, count: int) -> list[str]:
    """Names of the first and the last `count` convolutions."""
    kinds = {"Convolution", "GroupConvolution"}
    names = [
        node.get_friendly_name()
        for node in model.get_ordered_ops()
        if node.get_type_name() in kinds
    ]
    return [*dict.fromkeys(names[:count] + names[-count:])] if count else []
