"""What runs a version's signatures: the protocol that every engine fulfils."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from featurewire._tfs.meta_graph_pb2 import SignatureDef

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
    int8: bool = False
    """Compute with the quantised network of a version, in OpenVINO; one without is not loaded."""


class Unsuitable(Exception):
    """Why OpenVINO cannot run a version: half a sentence."""


Patience = Callable[[], float]
"""Seconds for which somebody will still wait for what a run computes: 0 when nobody does any more,
infinity where there is no deadline. It may change from one call to the next."""


def endless() -> float:
    """The patience of a run without a caller, such as a warm-up."""
    return math.inf


class Engine(Protocol):
    """One loaded version. `run` may be called from several threads at once."""

    name: str
    """`tensorflow` or `openvino`, for logs."""
    precision: str
    """What its networks compute in: `float32`, `bfloat16`, `float16` or `int8`."""
    side_by_side: bool
    """Whether several batches compute at once, each with a part of the machine; else one after the
    other, in the order in which they came."""
    pads: bool
    """Whether batches have to be, or are faster, of an allowed size. On a processor neither is so:
    every row costs what an image costs."""
    signatures: Mapping[str, SignatureDef]
    """Every signature of the version by its key."""

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        patience: Patience = endless,
    ) -> dict[str, np.ndarray]:
        """The named `outputs` of a signature.

        `inputs` are complete and of the signature's dtypes (strings: object arrays of bytes).
        Releases the GIL while it computes. Raises ServingError: DEADLINE_EXCEEDED or CANCELLED
        soon after `patience` has run out.
        """

    def close(self) -> None:
        """Free the memory; nothing runs any more when this is called."""
