"""Runs an artifact's network with OpenVINO and everything around it with TensorFlow.

The manifest of an artifact names two signatures: the preprocessing and the network.
Decoding stays in TensorFlow, in the artifact's graph. One batch is decoded while another is
computed. The network computes one batch at a time, on all cores.

TensorFlow and OpenVINO are imported only when a version is loaded.
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np

from featurewire._tfs.meta_graph_pb2 import SignatureDef
from featurewire.manifest import FILE, ManifestError, read
from featurewire.manifest.network import Split, has_vnni, int8, split
from featurewire_server.common import cgroup
from featurewire_server.common.errors import failed_precondition, from_run, internal
from featurewire_server.engines.engine import (
    EngineConfig,
    Patience,
    Unsuitable,
    endless,
)

if TYPE_CHECKING:
    from featurewire_server.engines.openvino_graph import Halves
    from featurewire_server.engines.openvino_network import Network

log = logging.getLogger(__name__)


def load(path: Path, config: EngineConfig, *, beside: bool = False) -> OpenVinoEngine | None:
    """Load the version directory `path`; None if only TensorFlow can run it.

    Raises FAILED_PRECONDITION instead of returning None if `config` asks for OpenVINO or int8.
    """
    try:
        split = suitable_split(path, config)
        return OpenVinoEngine(path, config, split, beside=beside)
    except Unsuitable as error:
        if config.engine == "openvino" or config.int8:
            raise failed_precondition(f"OpenVINO cannot run {path}: {error}") from error
        log.info("%s: the TensorFlow engine runs it, because %s", path, error)
        return None


def suitable_split(path: Path, config: EngineConfig) -> Split:
    """How to split the version, according to its manifest. Raises Unsuitable."""
    if importlib.util.find_spec("openvino") is None:
        raise Unsuitable("openvino is not installed (pip install openvino)")
    if config.mixed_precision == "float16":
        raise Unsuitable("OpenVINO computes in float32 or bfloat16 on a CPU, not in float16")
    try:
        parts = split(_manifest(path))
    except ManifestError as error:
        raise Unsuitable(f"its manifest {error}") from None
    if config.engine == "auto" and not config.int8 and _has_gpu():
        raise Unsuitable("there is a GPU")
    return parts


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = read(path)
    except (OSError, ManifestError) as error:
        raise Unsuitable(f"its manifest cannot be read ({error})") from None
    if manifest is None:
        raise Unsuitable(f"it has no manifest ({FILE})")
    return manifest


def int8_network(path: Path) -> Path:
    """The path of the version's 8-bit network.

    Raises Unsuitable if the network is missing, if its SHA-256 differs from the manifest's, or if
    this processor would compute it wrongly.
    """
    about = int8(_manifest(path))
    if about is None:
        raise Unsuitable("it has no network in 8 bits (export it with --int8)")
    try:
        if not about.is_intact(path):
            raise Unsuitable(
                "its network in 8 bits does not match its digest in the manifest (SHA-256)"
            )
    except OSError as error:
        raise Unsuitable(f"its network in 8 bits cannot be read ({error.strerror})") from None
    if not about.any_processor and not has_vnni():
        raise Unsuitable(
            "its network in 8 bits needs a processor with VNNI, which this one does not have "
            "(export it with --int8-any-processor)"
        )
    return path / about.network


def _has_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


class OpenVinoEngine:
    """One version: a TensorFlow session for everything but the network, and OpenVINO for that."""

    name = "openvino"
    side_by_side = False
    pads = False

    def __init__(
        self, path: Path, config: EngineConfig, split: Split, *, beside: bool = False
    ) -> None:
        """`beside`: load in a child process, to disturb running versions less.

        Raises Unsuitable if the graph cannot be split according to `split`.
        """
        from featurewire_server.engines import openvino_child as engine_openvino_child
        from featurewire_server.engines import openvino_graph as engine_openvino_graph
        from featurewire_server.engines import openvino_network as engine_openvino_network

        with tempfile.TemporaryDirectory(prefix="featurewire-") as folder:
            quantised = int8_network(path) if config.int8 else None
            self.precision = "int8" if quantised else config.mixed_precision or "float32"
            if beside:
                halves = engine_openvino_child.take_apart(path, config.tags, split, Path(folder))
            else:
                halves = engine_openvino_graph.take_apart(path, config.tags, split)
            self.signatures: Mapping[str, SignatureDef] = halves.signatures
            self._split = split
            self._around = _Around(halves, config)
            self._tails = halves.tails
            self._network: Network = engine_openvino_network.Network(
                quantised or halves.network or Path(folder, engine_openvino_child.NETWORK),
                input_shape=halves.network_input_shape,
                precision=self.precision,
                threads=self._around.threads or cgroup.cores(),
                beside=beside,
            )
            halves.network = b""

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        patience: Patience = endless,
    ) -> dict[str, np.ndarray]:
        try:
            if signature_name == self._split.network:
                images = inputs[self._split.input]
                return {name: self._network.run(images, patience) for name in outputs}
            if any(name in self._tails.get(signature_name, ()) for name in outputs):
                return self._run_beyond(signature_name, inputs, outputs, patience)
            return self._around.run(signature_name, inputs, outputs, patience)
        except Exception as error:
            raise from_run(error) from error

    def close(self) -> None:
        self._around.close()
        self._network.close()

    def _run_beyond(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        patience: Patience,
    ) -> dict[str, np.ndarray]:
        """Run the preprocessing, the network, and the part of the graph after the network."""
        tails = self._tails[signature_name]
        beyond = [name for name in outputs if name in tails]
        others = [name for name in outputs if name not in tails]
        images, values, known = self._around.preprocess(signature_name, inputs, others, patience)
        needed = {tensor: known[tensor] for name in beyond for tensor in tails[name]}
        try:
            vectors = self._network.run(images, patience)
            return values | self._around.finish(signature_name, beyond, vectors, needed)
        except Exception as error:
            found = from_run(error)
            if found.code is grpc.StatusCode.CANCELLED:
                raise
            # The failing input comes from this server, not from the caller.
            raise internal(found.message) from error


class _Around:
    """A TensorFlow session with the graph around the network."""

    def __init__(self, halves: Halves, config: EngineConfig) -> None:
        import tensorflow as tf

        from featurewire_server.engines.tensorflow import session_config

        proto = session_config(config)
        self.threads: int = proto.intra_op_parallelism_threads
        self._halves = halves
        graph = tf.Graph()
        with graph.as_default():
            tf.graph_util.import_graph_def(halves.around, name="")
        halves.around = None
        self._session = tf.compat.v1.Session(graph=graph, config=proto)
        self._callables: dict[tuple[tuple[str, ...], ...], Callable[..., list[Any]]] = {}

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        patience: Patience,
    ) -> dict[str, np.ndarray]:
        """Compute outputs that do not need the network."""
        signature = self.signatures[signature_name]
        feeds = {signature.inputs[name].name: array for name, array in inputs.items()}
        fetches = {name: signature.outputs[name].name for name in outputs}
        return self._call(fetches, feeds, patience)

    def preprocess(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        others: Sequence[str],
        patience: Patience,
    ) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Preprocess in one run of the session.

        Returns the input of the network, the outputs `others` (which do not need the network), and
        the tensors, by name, that `finish` needs for the remaining outputs.
        """
        signature = self.signatures[signature_name]
        tails = self._halves.tails[signature_name].values()
        known = {self._halves.network_source}.union(*tails)
        fetches = {f":{name}": signature.outputs[name].name for name in others}
        fetches |= {name: name for name in known}
        feeds = {signature.inputs[name].name: array for name, array in inputs.items()}
        found = self._call(fetches, feeds, patience)
        values = {name: found[f":{name}"] for name in others}
        return found[self._halves.network_source], values, found

    def finish(
        self,
        signature_name: str,
        outputs: Sequence[str],
        vectors: np.ndarray,
        needed: Mapping[str, np.ndarray],
    ) -> dict[str, np.ndarray]:
        """Compute `outputs` from the network's output and the preprocessed tensors `needed`."""
        signature = self.signatures[signature_name]
        feeds = {self._halves.network_output: vectors, **needed}
        fetches = {name: signature.outputs[name].name for name in outputs}
        return self._call(fetches, feeds, endless)

    @property
    def signatures(self) -> Mapping[str, SignatureDef]:
        return self._halves.signatures

    def close(self) -> None:
        self._callables.clear()
        self._session.close()

    def _call(
        self, fetches: Mapping[str, str], feeds: Mapping[str, np.ndarray], patience: Patience
    ) -> dict[str, np.ndarray]:
        key = (tuple(fetches.values()), tuple(feeds))
        call = self._callables.get(key)
        if call is None:
            from featurewire_server.engines.tensorflow import session_callable

            call = session_callable(self._session, list(fetches.values()), list(feeds))
            self._callables[key] = call
        return dict(zip(fetches, call(*feeds.values(), seconds=patience()), strict=True))
