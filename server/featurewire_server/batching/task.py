"""A request's inputs on their way through batches, and the batches that they travel in."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
import numpy as np

from featurewire_server.common.errors import (
    ServingError,
    failed_precondition,
    from_exception,
    invalid_argument,
)

if TYPE_CHECKING:
    from featurewire_server.batching.queue import Queue


class TaskTooLarge(ServingError):
    """A task that no batch can take, however empty."""

    def __init__(self, rows: int, largest: int) -> None:
        super().__init__(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"Task size {rows} is larger than maximum input batch size {largest}",
        )


@dataclass(kw_only=True)
class Terms:
    """What the order of requests goes by."""

    deadline: float | None = None
    """In seconds of `time.monotonic()`; None: none."""
    caller: object = None
    """Whatever tells one connection from another."""
    bulk: bool = False
    """Whether nobody waits for the answer; see `schedule`."""


class Task:
    """One request's inputs; its caller waits for `outputs`, and cancels them when it leaves."""

    def __init__(
        self,
        inputs: Mapping[str, np.ndarray],
        terms: Terms,
        *,
        rows: int | None = None,
        enqueued: float | None = None,
    ) -> None:
        self.inputs = inputs
        self.rows: int = next(iter(inputs.values())).shape[0] if rows is None else rows
        self.deadline = terms.deadline
        self.caller = terms.caller
        self.bulk = terms.bulk
        self.enqueued = time.monotonic() if enqueued is None else enqueued
        self.outputs: Future[dict[str, np.ndarray]] = Future()
        self.order = 0
        """Its place among all arrivals; set by the schedule."""
        self.trial = False
        """It runs although it seems to come too late: to measure whether it does."""
        self.taken = 0
        """Rows that batches have taken."""
        self._lock = threading.Lock()
        self._pieces: dict[int, dict[str, np.ndarray]] = {}
        self._missing = self.rows

    @property
    def left(self) -> int:
        """Rows that wait."""
        return self.rows - self.taken

    def alive(self, now: float) -> bool:
        """Whether somebody still waits for it."""
        return not self.outputs.done() and (self.deadline is None or self.deadline > now)

    def deliver(self, start: int, values: dict[str, np.ndarray], rows: int) -> None:
        """The outputs for the `rows` from row `start` on; the last piece ends the waiting."""
        with self._lock:  # the pieces of a split task may come from several threads
            self._pieces[start] = values
            self._missing -= rows
            if self._missing:
                return
        pieces = [self._pieces[start] for start in sorted(self._pieces)]
        try:
            if len(pieces) > 1:
                values = {name: np.concatenate([each[name] for each in pieces]) for name in values}
        except ValueError as error:  # pieces of different shapes: no fault of the batch's others
            self.fail(from_exception(error))
            return
        with contextlib.suppress(InvalidStateError):  # its caller has left, or a piece has failed
            self.outputs.set_result(values)

    def fail(self, error: ServingError) -> None:
        with contextlib.suppress(InvalidStateError):
            self.outputs.set_exception(error)


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
    """Seconds that it has had the machine for itself, counted by the schedule."""

    @property
    def rows(self) -> int:
        return sum(piece.rows for piece in self.pieces)

    def inputs(self) -> Mapping[str, np.ndarray]:
        """Of all pieces one after another, padded to `size`; without batching the task's own."""
        if not self.queue.config.merge:
            return self.pieces[0].inputs()
        return merge([piece.inputs() for piece in self.pieces], self.size)

    def deliver(self, values: dict[str, np.ndarray]) -> None:
        """Give each task its rows. Raises FAILED_PRECONDITION unless there is one for each."""
        if self.queue.config.merge:
            _check_outputs(values, self.size)
        first = self.pieces[0]
        if first.rows == first.task.rows == self.size:  # a whole task, and nothing else
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


def common_rows(inputs: Mapping[str, np.ndarray]) -> int:
    """Dimension 0 of all inputs; raises INVALID_ARGUMENT when they cannot be batched."""
    if not inputs:
        return 0
    if any(array.ndim == 0 for array in inputs.values()):
        raise invalid_argument("Batching Run() input tensors must have at least one dimension.")
    sizes = {array.shape[0] for array in inputs.values()}
    if len(sizes) > 1:
        raise invalid_argument(
            f"Batching Run() input tensors must have equal 0th-dimension size; got {sorted(sizes)}."
        )
    return int(sizes.pop())


def merge(pieces: Sequence[Mapping[str, np.ndarray]], rows: int) -> dict[str, np.ndarray]:
    """The inputs of all pieces one after another, then the first row again up to `rows`.

    Where pieces differ beyond dimension 0 they are padded at the end to the largest.
    """
    merged = {}
    for name in pieces[0]:
        arrays = _same_shape([piece[name] for piece in pieces])
        have = sum(len(array) for array in arrays)
        if rows > have:
            arrays = [*arrays, np.repeat(arrays[0][:1], rows - have, axis=0)]
        merged[name] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return merged


def _same_shape(arrays: list[np.ndarray]) -> list[np.ndarray]:
    if len({array.shape[1:] for array in arrays}) == 1:
        return arrays
    largest = np.max([array.shape[1:] for array in arrays], axis=0)
    padded = []
    for array in arrays:
        fill = b"" if array.dtype == object else 0
        whole = np.full((len(array), *largest), fill, dtype=array.dtype)
        whole[tuple(slice(size) for size in array.shape)] = array
        padded.append(whole)
    return padded


def _check_outputs(values: Mapping[str, np.ndarray], rows: int) -> None:
    """Raise FAILED_PRECONDITION unless every output has a row for every input row."""
    for name, array in values.items():
        if array.ndim == 0 or array.shape[0] != rows:
            raise failed_precondition(
                f"Batched output tensor's 0th dimension does not equal the sum of the 0th "
                f"dimension sizes of the input tensors: {name} has the shape "
                f"{list(array.shape)}, the batch {rows} rows"
            )


def refused_rows(values: Mapping[str, np.ndarray]) -> int:
    """Rows of an artifact's vectors that are NaN: images that were refused cost no network."""
    vectors = [array for array in values.values() if array.dtype.kind == "f" and array.ndim == 2]
    return max((int(np.isnan(array[:, :1]).sum()) for array in vectors), default=0)
