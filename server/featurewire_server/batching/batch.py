"""A batch: pieces of tasks that run together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from featurewire_server.batching.queue import Queue
from featurewire_server.batching.task import Task
from featurewire_server.common.errors import ServingError
from featurewire_server.messages.rows import check_rows, merge


@dataclass(frozen=True)
class Piece:
    """The rows of a task from `start` up to, but excluding, `stop`."""

    task: Task
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start

    def inputs(self) -> Mapping[str, np.ndarray]:
        if self.rows == self.task.rows:
            return self.task.inputs
        return {name: array[self.start : self.stop] for name, array in self.task.inputs.items()}


@dataclass(eq=False)
class Batch:
    queue: Queue
    pieces: list[Piece] = field(default_factory=list)
    bulk: bool = False
    """Whether the tasks are bulk."""
    size: int = 0
    """Number of rows including padding."""
    spent: float = 0.0
    """Seconds charged to the batch, as if it had the machine to itself; see `Running`."""

    @property
    def rows(self) -> int:
        return sum(piece.rows for piece in self.pieces)

    def inputs(self) -> Mapping[str, np.ndarray]:
        """The inputs of all pieces, padded to `size`; without batching, the inputs of the task."""
        if not self.queue.config.merge:
            return self.pieces[0].inputs()
        return merge([piece.inputs() for piece in self.pieces], self.size)

    def deliver(self, values: dict[str, np.ndarray]) -> None:
        """Give each task its rows of the outputs.

        Raises FAILED_PRECONDITION unless every output has `size` rows.
        """
        if self.queue.config.merge:
            check_rows(values, self.size)
        first = self.pieces[0]
        if first.rows == first.task.rows == self.size:  # one whole task without padding
            first.task.deliver(0, values, self.size)
            return
        at = 0
        for piece in self.pieces:
            part = {name: array[at : at + piece.rows] for name, array in values.items()}
            piece.task.deliver(piece.start, part, piece.rows)
            at += piece.rows

    def fail(self, error: ServingError) -> None:
        for piece in self.pieces:
            piece.task.fail(ServingError(error.code, error.message))
