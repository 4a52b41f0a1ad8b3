"""Quantises a network to 8 bits with NNCF's post-training quantisation.

Importing this module imports NNCF and OpenVINO.
"""

from __future__ import annotations

import contextlib
import io
import logging
from dataclasses import dataclass

import nncf
import numpy as np
import openvino as ov
from nncf.quantization.advanced_parameters import (
    AdvancedQuantizationParameters,
    OverflowFix,
)
from nncf.quantization.range_estimator import RangeEstimatorParametersSet
from openvino import opset13 as operations

from featurewire_exporter.int8.openvino_network import vectors
from featurewire_exporter.int8.rounding import Rounding, convolutions
from featurewire_exporter.int8.signals import received_elsewhere

_OFFSET_PICTURES = 100
"""Number of pictures to estimate the mean error of the vectors with."""
_RANGES = RangeEstimatorParametersSet.MINMAX
"""NNCF's default is the mean of the pictures' largest values, which clips the white of pictures
with more white than most."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One way to quantise."""

    name: str
    overflow_fix: bool = False
    """Weights take 7 bits, so that sums of two products fit into 16 bits. Processors without VNNI
    have no more, and with 8 bits the sums could saturate for other pictures than the gate's."""
    float_layers: int = 0
    """Number of convolutions at each end that stay in float32."""


SETTINGS = (
    Setting(name="plain"),
    Setting(name="plain, first and last 2 layers in float", float_layers=2),
    Setting(name="plain, first and last 4 layers in float", float_layers=4),
    Setting(name="plain, first and last 8 layers in float", float_layers=8),
    Setting(name="overflow fix", overflow_fix=True),
    Setting(name="first and last 2 layers in float", overflow_fix=True, float_layers=2),
    Setting(name="first and last 4 layers in float", overflow_fix=True, float_layers=4),
    Setting(name="first and last 8 layers in float", overflow_fix=True, float_layers=8),
)
"""First the settings that need VNNI; within each kind the fastest first."""


class Quantiser:
    """Quantises one network. Work that all settings share is done once."""

    def __init__(self, model: ov.Model, images: np.ndarray) -> None:
        """`images` to calibrate with: float32 `[N, height, width, 3]`."""
        self._model, self._images = model, images
        self._rounding = Rounding(model, images)
        self._offset_images = images[:: -(-len(images) // _OFFSET_PICTURES)]
        self._exact = vectors(model, self._offset_images)

    def quantise(self, setting: Setting) -> ov.Model:
        """The network in 8 bits."""
        ends = _ends(self._model, setting.float_layers)
        bits = 7 if setting.overflow_fix else 8
        quantised = self._by_nncf(self._rounding.rounded(bits, but=ends), setting, ends)
        self._rounding.round_weights(quantised, bits)
        _move(quantised, self._offset(quantised))
        return quantised

    def _by_nncf(self, model: ov.Model, setting: Setting, ignored: list[str]) -> ov.Model:
        dataset = nncf.Dataset([image[np.newaxis] for image in self._images])
        advanced = AdvancedQuantizationParameters(
            overflow_fix=OverflowFix.ENABLE if setting.overflow_fix else OverflowFix.DISABLE,
            activations_range_estimator_params=_RANGES,
        )
        # Not `nncf.set_log_level`, which also silences handlers that others share with its logger.
        logging.getLogger("nncf").setLevel(logging.ERROR)
        # NNCF makes a `Core` per network, and deletes them in the order of their creation.
        with received_elsewhere(), contextlib.redirect_stdout(io.StringIO()):
            return nncf.quantize(
                model,
                dataset,
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(self._images),
                ignored_scope=nncf.IgnoredScope(names=ignored) if ignored else None,
                advanced_parameters=advanced,
            )

    def _offset(self, quantised: ov.Model) -> np.ndarray:
        """Mean of float32's vectors less the quantised ones: float32 `[dimension]`."""
        found = vectors(quantised, self._offset_images)
        return (self._exact - found).mean(axis=0)


def versions() -> dict[str, str]:
    return {"nncf": nncf.__version__, "openvino": ov.__version__}


def _move(model: ov.Model, offset: np.ndarray) -> None:
    """Add `offset`, `[dimension]`, to the output of `model`."""
    result = model.get_results()[0]
    moved = operations.add(result.input_value(0), operations.constant(offset))
    result.input(0).replace_source_output(moved.output(0))


def _ends(model: ov.Model, count: int) -> list[str]:
    """Names of the first and the last `count` convolutions."""
    names = [node.get_friendly_name() for node in convolutions(model)]
    return [*dict.fromkeys(names[:count] + names[-count:])] if count else []
