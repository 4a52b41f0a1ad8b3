"""A network to 8 bits, by NNCF's post-training quantisation.

Importing this module imports NNCF and OpenVINO.
"""

from __future__ import annotations

import contextlib
import io
import logging
from dataclasses import dataclass, replace

import nncf
import numpy as np
import openvino as ov
from nncf.quantization.advanced_parameters import (
    AdvancedAccuracyRestorerParameters,
    AdvancedQuantizationParameters,
    OverflowFix,
)
from nncf.quantization.range_estimator import RangeEstimatorParametersSet
from openvino import opset13 as operations

from featurewire_exporter.int8.judge import Judge, vectors
from featurewire_exporter.int8.openvino_network import compiled
from featurewire_exporter.int8.rounding import Rounding, convolutions
from featurewire_exporter.int8.signals import received_elsewhere

_ACCURATE_BIAS_PICTURES = 64
"""NNCF keeps what every layer gets of a fifth of them: with 300, a network of 244 convolutions
takes more than 12 GB."""
_OFFSET_PICTURES = 100
"""So many tell by how much vectors are off in the mean."""
_RANGES = RangeEstimatorParametersSet.MINMAX
"""NNCF's default, the mean of pictures' largest values, would cut off the white of those that have
more of it than others."""
_RANKING = AdvancedAccuracyRestorerParameters(
    ranking_subset_size=6, max_num_iterations=16, num_ranking_workers=1
)
"""Layers are ranked by the pictures that suffer most, and so many at most go back to float."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One way to quantise."""

    name: str
    overflow_fix: bool = False
    """Weights take 7 bits, so that sums of two products fit 16, all that processors without VNNI
    have: 8 bits may do for the pictures of the gate there and saturate for the next."""
    accurate_bias: bool = False
    """Biases are corrected layer by layer with what the quantised layers before them give."""
    float_layers: int = 0
    """So many convolutions at each end stay in float32."""
    accuracy_control: bool = False
    """Then layers go back to float32, those that cost most first, until the gate passes."""


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


class Quantiser:
    """Quantises one network. What of it is the same for all settings is computed once."""

    def __init__(self, model: ov.Model, images: np.ndarray, judge: Judge) -> None:
        """`images` to calibrate with: float32 `[N, height, width, 3]`."""
        self._model, self._images, self._judge = model, images, judge
        self._rounding = Rounding(model, images)
        self._offset_images = images[:: -(-len(images) // _OFFSET_PICTURES)]
        self._exact = vectors(compiled(model), self._offset_images)

    def quantise(self, setting: Setting) -> ov.Model:
        """The network in 8 bits."""
        ends = _ends(self._model, setting.float_layers)
        if setting.accuracy_control:
            # Layers that go back to float get the weights that NNCF was given, and what it has
            # judged is what is kept.
            return self._by_nncf(self._model, setting, ends)
        bits = 7 if setting.overflow_fix else 8
        quantised = self._by_nncf(self._rounding.rounded(bits, but=ends), setting, ends)
        self._rounding.settle(quantised, bits)
        _move(quantised, self._offset(quantised))
        return quantised

    def _by_nncf(self, model: ov.Model, setting: Setting, ignored: list[str]) -> ov.Model:
        images = self._images
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
            overflow_fix=OverflowFix.ENABLE if setting.overflow_fix else OverflowFix.DISABLE,
            activations_range_estimator_params=_RANGES,
        )
        # Not `nncf.set_log_level`, which also silences handlers that others share with its logger.
        logging.getLogger("nncf").setLevel(logging.ERROR)
        # NNCF makes a `Core` a network, and lets them go in the order in which they came.
        with received_elsewhere(), contextlib.redirect_stdout(io.StringIO()):
            if not setting.accuracy_control:
                return nncf.quantize(model, dataset, advanced_parameters=advanced, **settings)
            # The judge takes fewer pictures than it has for a ranking.
            fewer = min(_RANKING.ranking_subset_size, len(self._judge) // 2)
            return nncf.quantize_with_accuracy_control(
                model,
                dataset,
                nncf.Dataset(range(len(self._judge))),
                self._judge.validate,
                max_drop=0.0,
                advanced_quantization_parameters=advanced,
                advanced_accuracy_restorer_parameters=replace(_RANKING, ranking_subset_size=fewer),
                **settings,
            )

    def _offset(self, quantised: ov.Model) -> np.ndarray:
        """What vectors lack of those of float32, in the mean: float32 `[dimension]`."""
        found = vectors(compiled(quantised), self._offset_images)
        return (self._exact - found).mean(axis=0)


def versions() -> dict[str, str]:
    return {"nncf": nncf.__version__, "openvino": ov.__version__}


def _move(model: ov.Model, offset: np.ndarray) -> None:
    """Add `offset`, `[dimension]`, to what `model` gives."""
    result = model.get_results()[0]
    moved = operations.add(result.input_value(0), operations.constant(offset))
    result.input(0).replace_source_output(moved.output(0))


def _ends(model: ov.Model, count: int) -> list[str]:
    """Names of the first and the last `count` convolutions."""
    names = [node.get_friendly_name() for node in convolutions(model)]
    return [*dict.fromkeys(names[:count] + names[-count:])] if count else []
