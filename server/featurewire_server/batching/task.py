"""A request's inputs on their way through batches, and the batches that they travel in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
import numpy as np

from ..common.cancellation import Cancellation
from ..common.errors import ServingError, cancelled, deadline_exceeded

if TYPE_CHECKING:
    from .queue import Queue


class TaskTooLarge(ServingError):
    """A task that no batch can take, however empty."""

    def __init__(self, rows: int, largest: int) -> None:
        super().__init__(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"Task size {rows} is larger than maximum input batch size {largest}",
        )


class Task:
    """One request's inputs; its caller waits in `result`."""

    def __init__(
        self,
        inputs: Mapping[str, np.ndarray],
        *,
        rows: int | None = None,
        deadline: float | None = None,
        cancellation: Cancellation | None = None,
        enqueued: float | None = None,
    ) -> None:
        self.inputs = inputs
        self.rows: int = next(iter(inputs.values())).shape[0] if rows is None else rows
        self.deadline = deadline
        self.enqueued = time.monotonic() if enqueued is None else enqueued
        self.order = 0
        """Its place among all arrivals; set by the schedule."""
        self.trial = False
        """It runs although it seems to come too late: to measure whether it does."""
        self.taken = 0
        """Rows that batches have taken."""
        self.caller = cancellation.caller if cancellation is not None else None
        self.bulk = cancellation is not None and cancellation.bulk
        self._cancellation = cancellation
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._pieces: dict[int, dict[str, np.ndarray]] = {}
        self._missing = self.rows
        self._error: ServingError | None = None
        self._callbacks: list[Callable[[], None]] = []

    @property
    def left(self) -> int:
        """Rows that wait."""
        return self.rows - self.taken

    def alive(self, now: float) -> bool:
        """Whether somebody still waits for it."""
        return not (
            self._done.is_set()
            or (self.deadline is not None and self.deadline <= now)
            or (self._cancellation is not None and self._cancellation.is_set())
        )

    def deliver(self, start: int, values: dict[str, np.ndarray], rows: int) -> None:
        """The outputs for the `rows` from row `start` on; the last piece ends the waiting."""
        with self._lock:  # the pieces of a split task may come from several threads
            self._pieces[start] = values
            self._missing -= rows
            if self._missing:
                return
        self._finish()

    def fail(self, error: ServingError) -> None:
        self._error = error
        self._finish()

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the outputs are there or have failed, in whatever thread ends it."""
        with self._lock:
            if not self._done.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def _finish(self) -> None:
        with self._lock:
            self._done.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def result(self, leave: Callable[[], None] = lambda: None) -> dict[str, np.ndarray]:
        """Wait for the outputs; raises what failed, DEADLINE_EXCEEDED or CANCELLED.

        `leave` is called when nobody waits any more although the outputs are not there.
        """
        if self._cancellation is not None:
            self._cancellation.add_callback(self._done.set)
        timeout = None if self.deadline is None else max(self.deadline - time.monotonic(), 0)
        if not self._done.wait(timeout):
            self._done.set()
            leave()
            raise deadline_exceeded()
        if self._error is not None:
            raise self._error
        if self._missing:
            leave()
            raise cancelled()
        pieces = [self._pieces[start] for start in sorted(self._pieces)]
        if len(pieces) == 1:
            return pieces[0]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


@dataclass(frozen=True)
class Piece:
    """The rows `start` to `stop` of a task."""

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
    """Pieces that run together."""

    queue: Queue
    pieces: list[Piece] = field(default_factory=list)
    bulk: bool = False
    """Whether it was the turn of the class bulk."""
    size: int = 0
    """Rows with padding."""
    spent: float = 0.0
    """Seconds that it has had the machine for itself, counted by `running`."""

    @property
    def rows(self) -> int:
        return sum(piece.rows for piece in self.pieces)
