"""One version of one model: its state, and the runner that answers its calls."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path

from featurewire._tfs.get_model_status_pb2 import ModelVersionStatus
from featurewire_server.batching.runner import Runner
from featurewire_server.common.errors import ServingError


class State(enum.IntEnum):
    """The states of a version, with the numbers of ModelVersionStatus.State."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(eq=False, kw_only=True)
class Servable:
    """The manager's record of a version; the manager's lock guards every field."""

    name: str
    version: int
    path: Path
    state: State = State.START
    aspired: bool = True
    attempts: int = 0
    """Number of failed attempts to load the version."""
    error: ServingError | None = None
    """Why the last attempt to load it failed."""
    runner: Runner = field(init=False)
    """Set when the version becomes AVAILABLE, and deleted when it is unloaded."""
    inflight: int = 0
    """Number of requests that are using the runner."""

    def settled(self) -> bool:
        """Whether the first attempt to load the version is over, with success or not."""
        return self.state in (State.AVAILABLE, State.END) or self.attempts > 0

    def status(self) -> ModelVersionStatus:
        status = ModelVersionStatus(version=self.version, state=self.state.name)
        status.status.SetInParent()
        if self.error is not None:
            status.status.error_code = self.error.number  # type: ignore[assignment]
            status.status.error_message = self.error.message
        return status
