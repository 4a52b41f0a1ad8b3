"""One version of one model: its state, and the runner that answers for it."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from featurewire._tfs.get_model_status_pb2 import ModelVersionStatus
from featurewire._tfs.meta_graph_pb2 import SignatureDef

from ..common.cancellation import Cancellation
from ..common.errors import ServingError
from ..messages.predict import Run
from .policy import Snapshot, State


class Runner(Protocol):
    """What the manager keeps of a loaded version: an engine, with or without batching."""

    signatures: Mapping[str, SignatureDef]

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        *,
        deadline: float | None = None,
        cancelled: Cancellation | None = None,
    ) -> dict[str, np.ndarray]:
        """The named outputs; raises ServingError. See engine.Engine.run."""

    async def run_async(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        *,
        deadline: float | None = None,
        cancelled: Cancellation | None = None,
    ) -> dict[str, np.ndarray]:
        """The same, without a thread that waits."""

    def require_time(
        self,
        signature_name: str,
        outputs: Sequence[str],
        *,
        deadline: float | None,
        cancelled: Cancellation | None,
    ) -> None:
        """Raise RESOURCE_EXHAUSTED if not even one row could be answered in time."""

    def close(self) -> None: ...


@dataclass(eq=False, kw_only=True)
class Servable:
    """The manager's record of a version; the manager's lock guards every field."""

    name: str
    version: int
    path: Path
    state: State = State.START
    aspired: bool = True
    attempts: int = 0
    """Attempts to load it that have failed."""
    error: ServingError | None = None
    """Why the last attempt to load it failed."""
    runner: Runner | None = None
    """Once it is AVAILABLE, until it is unloaded."""
    inflight: int = 0
    """Requests that hold the runner."""

    @property
    def signatures(self) -> Mapping[str, SignatureDef]:
        """Of an AVAILABLE version."""
        assert self.runner is not None
        return self.runner.signatures

    def run(
        self, run: Run, *, deadline: float | None, cancelled: Cancellation
    ) -> Awaitable[dict[str, np.ndarray]]:
        """The outputs of an AVAILABLE version; raises ServingError."""
        assert self.runner is not None
        return self.runner.run_async(
            run.signature_name, run.inputs, run.outputs, deadline=deadline, cancelled=cancelled
        )

    def snapshot(self) -> Snapshot:
        return Snapshot(version=self.version, state=self.state, aspired=self.aspired)

    def settled(self) -> bool:
        """Whether a first answer is known: it is AVAILABLE, has ended or has failed once."""
        return self.state in (State.AVAILABLE, State.END) or self.attempts > 0

    def status(self) -> ModelVersionStatus:
        status = ModelVersionStatus(version=self.version, state=self.state.name)
        status.status.SetInParent()
        if self.error is not None:
            status.status.error_code = self.error.number  # type: ignore[assignment]
            status.status.error_message = self.error.message
        return status
