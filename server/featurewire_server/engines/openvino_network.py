"""A frozen network that OpenVINO compiles for a few batch sizes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featurewire_server.common.errors import cancelled, invalid_argument
from featurewire_server.engines.engine import Patience, Unsuitable, endless
from featurewire_server.engines.libraries import import_openvino

if TYPE_CHECKING:
    import openvino as ov
else:
    ov = import_openvino()

SIZES = (16, 4, 2, 1)
"""Compiled batch sizes, largest first; other sizes run in pieces. A model that is compiled for one
size is up to a fifth faster than a model for any size. Each takes as much memory as the network."""

_core = ov.Core()
"""Shared by all networks until the process ends. If two cores are freed in the order of their
creation, a thread that compiles is left without a signal stack."""

_compute = ThreadPoolExecutor(1, thread_name_prefix="compute")
"""Computes one batch at a time, with all its pieces, in order of arrival. A batch uses every core,
so two batches at the same time, or with interleaved pieces, would only delay each other."""


class Network:
    """Computes float32 [N, dimension] from float32 [N, *input_shape]. Thread-safe."""

    def __init__(
        self,
        file: Path,
        *,
        input_shape: tuple[int, ...],
        precision: str,
        threads: int,
        beside: bool = False,
    ) -> None:
        """`file`: a frozen GraphDef or an OpenVINO model, with one input, and one output that is
        not the input of another node; `precision`: `bfloat16`, or anything else for float32;
        `beside`: compile all sizes now, so that other networks do not wait for it later. Raises
        Unsuitable if OpenVINO cannot read the network.
        """
        self._input_shape = input_shape
        self._settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        try:
            self._model = _core.read_model(file)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise Unsuitable(f"OpenVINO cannot read its network ({reason})") from error
        self._requests: dict[int, ov.InferRequest] = {}
        if self._model.output(0).partial_shape.rank.get_length() != 2:
            raise Unsuitable("its network's output is not one vector per image")
        self.dimension: int = self._model.output(0).partial_shape[1].get_length()
        if beside:
            for size in SIZES:
                self._request(size)

    def run(self, images: np.ndarray, patience: Patience = endless) -> np.ndarray:
        """Compute the vectors of `images`.

        Raises INVALID_ARGUMENT for images of another shape, CANCELLED if all callers have left.
        """
        if images.shape[1:] != self._input_shape or images.ndim == 0:
            expected = ", ".join(map(str, self._input_shape))
            raise invalid_argument(f"images must be [N, {expected}], not {list(images.shape)}")
        return _compute.submit(
            self._run, np.ascontiguousarray(images, np.float32), patience
        ).result()

    def _run(self, images: np.ndarray, patience: Patience) -> np.ndarray:
        vectors = np.empty((len(images), self.dimension), np.float32)
        at = 0
        for size in pieces(len(images)):
            if patience() <= 0:
                raise cancelled("The caller no longer waits for the answer")
            request = self._request(size)
            request.infer({0: images[at : at + size]}, share_inputs=True)
            vectors[at : at + size] = request.get_output_tensor().data
            at += size
        return vectors

    def close(self) -> None:
        self._requests.clear()
        self._model = None

    def _request(self, size: int) -> ov.InferRequest:
        """The request for a batch size, compiled on first use. Warm-up spends this second."""
        request = self._requests.get(size)
        if request is None:
            model = self._model.clone()
            model.reshape([size, *self._input_shape])
            compiled = _core.compile_model(model, "CPU", self._settings)
            request = self._requests[size] = compiled.create_infer_request()
        return request


def pieces(rows: int) -> list[int]:
    """Split `rows` into as few compiled sizes as possible."""
    found = []
    for size in SIZES:
        count, rows = divmod(rows, size)
        found += [size] * count
    return found
