"""What runs a version's signatures: the protocol that every engine fulfils."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from featurewire._tfs.meta_graph_pb2 import SignatureDef

MANIFEST = Path("assets.extra", "featurewire.json")
"""In the version directory of an artifact of the exporter."""


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How engines are made; the same for every version of every model."""

    engine: str = "auto"
    """`auto`, `tensorflow` or `openvino`."""
    tags: tuple[str, ...] = ("serve",)
    """The tag set of the meta graph to load."""
    session_config: bytes = b""
    """A serialized `tensorflow.ConfigProto`: the session file and the parallelism flags merged."""
    mixed_precision: str = ""
    """Empty (float32), `bfloat16` (CPU) or `float16` (GPU)."""


class Engine(Protocol):
    """One loaded version. `run` may be called from several threads at once."""

    name: str
    """`tensorflow` or `openvino`, for logs."""
    side_by_side: bool
    """Whether several batches compute at once, each with a part of the machine; else one after the
    other, in the order in which they came."""
    signatures: Mapping[str, SignatureDef]
    """Every signature of the version by its key."""

    def run(
        self, signature_name: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """The named `outputs` of a signature.

        `inputs` are complete and of the signature's dtypes (strings: object arrays of bytes).
        Releases the GIL while it computes. Raises ServingError.
        """

    def close(self) -> None:
        """Free the memory; nothing runs any more when this is called."""


def load_engine(path: Path, config: EngineConfig, *, beside: bool = False) -> Engine:
    """Load the version directory `path` with the engine that `config` asks for.

    `beside`: other versions answer meanwhile, and are spared at the price of a longer load.
    Raises ServingError when the directory cannot be loaded.
    """
    engine = _load(path, config, beside)
    if not (path / MANIFEST).is_file():
        return engine
    from .engine_parts import PartsEngine

    return PartsEngine(engine)


def _load(path: Path, config: EngineConfig, beside: bool) -> Engine:
    if config.engine != "tensorflow":
        from . import engine_openvino

        engine = engine_openvino.load(path, config, beside=beside)
        if engine is not None:
            return engine
    from . import engine_tensorflow

    return engine_tensorflow.TensorFlowEngine(path, config)
