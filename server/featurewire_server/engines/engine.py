"""The interface of engines, which run the signatures of a version."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from featurewire._tfs.meta_graph_pb2 import SignatureDef


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """The settings of engines, the same for all versions of all models."""

    engine: str = "auto"
    """`auto`, `tensorflow` or `openvino`."""
    tags: tuple[str, ...] = ("serve",)
    """The tag set of the meta graph to load."""
    session_config: bytes = b""
    """A serialized `tensorflow.ConfigProto`: the session file."""
    intra_op_threads: int = 0
    """Threads of one operation; 0: the engine's default. OpenVINO computes with this many."""
    inter_op_threads: int = 0
    """Operations at a time in TensorFlow; 0: its default."""
    gpu_memory_fraction: float = 0.0
    """The fraction of a GPU's memory that TensorFlow takes; 0: as needed."""
    mixed_precision: str = ""
    """Empty (float32), `bfloat16` (CPU) or `float16` (GPU)."""
    int8: bool = False
    """Compute the version's 8-bit network with OpenVINO; a version without one does not load."""


class Unsuitable(Exception):
    """OpenVINO cannot run a version. The text is a clause such as `there is a GPU`."""


Patience = Callable[[], float]
"""Returns for how many seconds a caller will still wait for a run: 0 or less if all callers have
left, infinity without a deadline. The value changes as callers leave and time passes."""


def endless() -> float:
    """The patience of a run without a caller, such as a warm-up."""
    return math.inf


class Engine(Protocol):
    """One loaded version. `run` may be called from several threads at once."""

    name: str
    """`tensorflow` or `openvino`, for logs."""
    precision: str
    """The number format of the network: `float32`, `bfloat16`, `float16` or `int8`."""
    side_by_side: bool
    """Whether batches compute at the same time, each with a part of the machine. If not, they
    compute one after the other, in their order of arrival."""
    pads: bool
    """Whether padding to an allowed size is required or faster. On a CPU it is usually neither,
    because a padding row costs as much as an image."""
    signatures: Mapping[str, SignatureDef]
    """All signatures of the version by key."""

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        patience: Patience = endless,
    ) -> dict[str, np.ndarray]:
        """Run a signature and return the named `outputs`.

        `inputs` are complete and have the signature's dtypes (strings: object arrays of bytes).
        Releases the GIL during computation. Raises ServingError; DEADLINE_EXCEEDED or CANCELLED
        soon after `patience` has run out.
        """

    def close(self) -> None:
        """Free the memory. Call this only after all runs have ended."""
