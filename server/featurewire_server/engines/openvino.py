"""Computes an exported version without TensorFlow.

Each image is decoded by itself on a pool of threads. OpenVINO computes the network for a batch of
decoded images, on all cores, while the pool decodes the images of the next batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from featurewire.manifest.files import text_in_graph
from featurewire_server.common import cgroup
from featurewire_server.common.errors import cancelled, from_run, invalid_argument
from featurewire_server.engines.engine import EngineConfig, Patience, Unsuitable, endless
from featurewire_server.engines.exported import MANIFEST, NETWORK, PREPROCESS, read_exported
from featurewire_server.engines.openvino_network import SIZES, Network
from featurewire_server.preprocess import Preprocess, RefusedImage

BLOCK = max(SIZES)
"""Decoded images per run of the network."""

_decode = ThreadPoolExecutor(cgroup.cores(), thread_name_prefix="decode")
"""Decodes the images of all versions, in their order of arrival."""


class OpenVinoEngine:
    """One version."""

    name = "openvino"
    side_by_side = False
    pads = False

    def __init__(self, path: Path, config: EngineConfig, *, beside: bool = False) -> None:
        """`beside`: compile for all batch sizes now, so that running versions do not wait for it
        later. Raises Unsuitable.
        """
        version = read_exported(path, config.tags, in_int8=config.int8)
        self.signatures = version.signatures
        self.precision = "int8" if config.int8 else config.mixed_precision or "float32"
        self._text = text_in_graph(version.manifest)
        try:
            self._preprocess = Preprocess(version.manifest)
        except ValueError as error:
            raise Unsuitable(str(error)) from None
        threads = config.intra_op_threads or cgroup.cores()
        self._network = Network(
            version.network,
            input_shape=self._preprocess.shape,
            precision=self.precision,
            threads=threads,
            beside=beside,
        )
        self._bridges = {
            name: Network(
                graph,
                input_shape=(self._network.dimension,),
                precision="float32",
                threads=threads,
                beside=beside,
            )
            for name, graph in version.bridges.items()
        }

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        patience: Patience = endless,
    ) -> dict[str, np.ndarray]:
        try:
            found = self._run(signature_name, inputs, outputs, patience)
        except Exception as error:
            raise from_run(error) from error
        return {name: found[name] for name in outputs}

    def close(self) -> None:
        for network in (self._network, *self._bridges.values()):
            network.close()

    def _run(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        patience: Patience,
    ) -> dict[str, np.ndarray]:
        if signature_name == MANIFEST:
            return {"manifest": np.full(inputs["request"].shape, self._text, object)}
        if signature_name == NETWORK:
            return {"default": self._network.run(inputs["images"], patience)}
        files = inputs["image_bytes"]
        if files.ndim != 1:
            raise invalid_argument(f"image_bytes must be [N], not {list(files.shape)}")
        if signature_name == PREPROCESS:
            pixels, status = self._rows(files, lambda images: images, patience)
            return {"images": _spread(pixels, status, 0, self._preprocess.shape), "status": status}
        if "features" not in outputs:
            return {"status": self._rows(files, lambda images: images, patience)[1]}
        bridge = self._bridges.get(signature_name)

        def vectors(images: np.ndarray) -> np.ndarray:
            found = self._network.run(images, patience)
            return bridge.run(found, patience) if bridge else found

        rows, status = self._rows(files, vectors, patience)
        dimension = (bridge or self._network).dimension
        return {"features": _spread(rows, status, np.nan, (dimension,)), "status": status}

    def _rows(
        self,
        files: np.ndarray,
        compute: Callable[[np.ndarray], np.ndarray],
        patience: Patience,
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Decode `files` and give the pixels to `compute`, up to `BLOCK` images at a time.

        Returns what `compute` has returned, and the status of each file, int32 `[N]`.
        """

        def decode(file: bytes) -> np.ndarray:
            if patience() <= 0:
                raise cancelled("The caller no longer waits for the answer")
            return self._preprocess.pixels(file)

        waiting = [_decode.submit(decode, file) for file in files]
        status = np.zeros(len(files), np.int32)
        found: list[np.ndarray] = []
        block: list[np.ndarray] = []
        try:
            for at, decoded in enumerate(waiting):
                try:
                    block.append(decoded.result())
                except RefusedImage as refused:
                    status[at] = refused.status
                if block and (len(block) == BLOCK or at == len(files) - 1):
                    found.append(compute(np.stack(block)))
                    block.clear()
        finally:
            for decoded in waiting:
                decoded.cancel()
        return found, status


def _spread(
    blocks: Sequence[np.ndarray], status: np.ndarray, fill: float, row: tuple[int, ...]
) -> np.ndarray:
    """float32 `[N, *row]`: the rows of `blocks` where `status` is 0, and `fill` elsewhere."""
    spread = np.full((len(status), *row), fill, np.float32)
    if blocks:
        spread[status == 0] = np.concatenate(blocks)
    return spread
