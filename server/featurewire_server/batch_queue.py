"""The queue of one signature: which waiting tasks run together. No threads, no engine."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc
import numpy as np

from .batching_config import BatchingConfig
from .cancellation import Cancellation
from .errors import ServingError, cancelled, deadline_exceeded, unavailable


class TaskTooLarge(ServingError):
    """A task that no batch can take, however empty."""

    def __init__(self, rows: int, largest: int) -> None:
        super().__init__(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"Task size {rows} is larger than maximum input batch size {largest}",
        )


class Task:
    """One request's inputs on their way through a batch; its caller waits in `result`."""

    def __init__(
        self,
        inputs: Mapping[str, np.ndarray],
        *,
        deadline: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> None:
        self.inputs = inputs
        self.rows = next(iter(inputs.values())).shape[0]
        self.deadline = deadline
        self.enqueued = time.monotonic()
        self._cancellation = cancellation
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._parts: dict[int, dict[str, np.ndarray]] = {}
        self._missing = self.rows
        self._error: ServingError | None = None

    def alive(self, now: float) -> bool:
        """Whether somebody still waits for it."""
        return not (
            self._done.is_set()
            or (self.deadline is not None and self.deadline <= now)
            or (self._cancellation is not None and self._cancellation.is_set())
        )

    def deliver(self, start: int, values: dict[str, np.ndarray], rows: int) -> None:
        """The outputs for the `rows` from row `start` on; the last part ends the waiting."""
        with self._lock:  # the parts of a split task may come from several threads
            self._parts[start] = values
            self._missing -= rows
            if self._missing == 0:
                self._done.set()

    def fail(self, error: ServingError) -> None:
        self._error = error
        self._done.set()

    def result(self) -> dict[str, np.ndarray]:
        """Wait for the outputs; raises what failed, DEADLINE_EXCEEDED or CANCELLED."""
        if self._cancellation is not None:
            self._cancellation.add_callback(self._done.set)
        timeout = None if self.deadline is None else max(self.deadline - time.monotonic(), 0)
        if not self._done.wait(timeout):
            self._done.set()  # what is still in the queue is dead now
            raise deadline_exceeded()
        if self._error is not None:
            raise self._error
        if self._missing:
            raise cancelled()
        parts = [self._parts[start] for start in sorted(self._parts)]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True)
class Piece:
    """The rows `start` to `stop` of a task."""

    task: Task
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start

    def inputs(self) -> dict[str, np.ndarray]:
        return {name: array[self.start : self.stop] for name, array in self.task.inputs.items()}


@dataclass
class Batch:
    """Pieces that run together: `rows` in all, none of another `shape` than the rest."""

    shape: object
    pieces: list[Piece] = field(default_factory=list)
    rows: int = 0

    def add(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.rows += piece.rows

    @property
    def opened(self) -> float:
        return min(piece.task.enqueued for piece in self.pieces)


class Queue:
    """Batches of one signature and output set, oldest first; the last one is open."""

    def __init__(self, config: BatchingConfig) -> None:
        self._config = config
        self._batches: deque[Batch] = deque()

    def __len__(self) -> int:
        """Batches enqueued."""
        return len(self._batches)

    def add(self, task: Task) -> None:
        """Enqueue; raises INVALID_ARGUMENT for a task too large, UNAVAILABLE when full."""
        config = self._config
        if task.rows > config.max_batch_size:
            raise TaskTooLarge(task.rows, config.max_batch_size)
        whole = Piece(task, 0, task.rows)
        if self._new_batches(whole) > config.max_enqueued_batches:
            self.drop_dead()
            if self._new_batches(whole) > config.max_enqueued_batches:
                raise unavailable(
                    "The batch scheduling queue to which this task was submitted is full; "
                    f"currently {len(self._batches)} batches enqueued and "
                    f"max_enqueued_batches is {config.max_enqueued_batches}"
                )
        self._append(whole)

    def _new_batches(self, piece: Piece) -> int:
        """How many batches would be enqueued with `piece`."""
        room = self._room(piece)
        if not self._config.split:
            return len(self._batches) + (piece.rows > room)
        beyond = max(piece.rows - room, 0)
        return len(self._batches) - (-beyond // self._config.execution_size)

    def _room(self, piece: Piece) -> int:
        if not self._batches or self._batches[-1].shape != self._shape(piece.task):
            return 0
        return self._config.execution_size - self._batches[-1].rows

    def _append(self, piece: Piece) -> None:
        while piece.rows:
            room = self._room(piece)
            if room == 0 or (piece.rows > room and not self._config.split):
                self._batches.append(Batch(self._shape(piece.task)))
                room = self._config.execution_size
            middle = min(piece.start + room, piece.stop)
            self._batches[-1].add(Piece(piece.task, piece.start, middle))
            piece = Piece(piece.task, middle, piece.stop)

    def _shape(self, task: Task) -> object:
        """What tasks of one batch must share, so that none can make the others fail."""
        trimmed = (lambda shape: len(shape)) if self._config.pad_variable_length else tuple
        return tuple(
            (name, array.dtype.str, trimmed(array.shape[1:]))
            for name, array in sorted(task.inputs.items())
        )

    def drop_dead(self) -> None:
        """Forget tasks that nobody waits for, and close the gaps that they leave."""
        now = time.monotonic()
        pieces = [piece for batch in self._batches for piece in batch.pieces]
        alive = [piece for piece in pieces if piece.task.alive(now)]
        if len(alive) < len(pieces):
            self._batches.clear()
            for piece in alive:
                self._append(piece)

    def due(self) -> float | None:
        """When the first batch is to run: in the past if it is full; None: there is none."""
        if not self._batches:
            return None
        first = self._batches[0]
        if len(self._batches) > 1 or first.rows >= self._config.execution_size:
            return 0.0
        return first.opened + self._config.timeout

    def take(self, *, busy: bool = False) -> Batch | None:
        """Remove and return the first batch, without what is dead; None if nothing is left.

        `busy`: other batches run. Then rows beyond the largest allowed size that is full stay for
        the next batch: padding them would cost time that the other batches could use.
        """
        now = time.monotonic()
        if any(not piece.task.alive(now) for piece in self._batches[0].pieces):
            self.drop_dead()
        if not self._batches:
            return None
        first = self._batches.popleft()
        if busy:
            self._give_back(first)
        return first

    def _give_back(self, batch: Batch) -> None:
        """Return to the front of the queue what only padding could round up to an allowed size."""
        full = max((size for size in self._config.allowed_sizes if size <= batch.rows), default=0)
        kept = Batch(batch.shape)
        for piece in batch.pieces:
            if kept.rows + piece.rows > full:
                break
            kept.add(piece)
        rest = batch.pieces[len(kept.pieces) :]
        if not kept.rows or not rest:
            return
        later = [piece for other in self._batches for piece in other.pieces]
        self._batches.clear()
        for piece in rest + later:
            self._append(piece)
        batch.pieces, batch.rows = kept.pieces, kept.rows
