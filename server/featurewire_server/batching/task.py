"""A task: the rows of one request."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass

import grpc
import numpy as np

from featurewire_server.common.errors import ServingError, from_exception


class TaskTooLarge(ServingError):
    """The task has more rows than the largest batch."""

    def __init__(self, rows: int, largest: int) -> None:
        super().__init__(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"Task size {rows} is larger than maximum input batch size {largest}",
        )


@dataclass(kw_only=True)
class Terms:
    """The properties of a request that decide when it runs."""

    deadline: float | None = None
    """The deadline in seconds of `time.monotonic()`; None: no deadline."""
    caller: object = None
    """Identifies the connection."""
    bulk: bool = False
    """Whether the call is bulk, not interactive."""


class Task:
    """The inputs of a request. Its caller waits for `outputs`, or cancels that future."""

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
        self.turn = 0
        """The round in which the task runs; set by its line."""
        self.taken = 0
        """Number of rows already in batches."""
        self._lock = threading.Lock()
        self._pieces: dict[int, dict[str, np.ndarray]] = {}
        self._missing = self.rows

    @property
    def left(self) -> int:
        """Number of waiting rows."""
        return self.rows - self.taken

    def alive(self, now: float) -> bool:
        """Whether the caller is still waiting."""
        return not self.outputs.done() and (self.deadline is None or self.deadline > now)

    def deliver(self, start: int, values: dict[str, np.ndarray], rows: int) -> None:
        """Store the outputs of `rows` rows from `start` on. The last piece answers the caller."""
        with self._lock:  # the pieces of a split task may come from several threads
            self._pieces[start] = values
            self._missing -= rows
            if self._missing:
                return
        pieces = [self._pieces[start] for start in sorted(self._pieces)]
        try:
            if len(pieces) > 1:
                values = {name: np.concatenate([each[name] for each in pieces]) for name in values}
        except ValueError as error:  # the pieces differ in shape; other tasks are not affected
            self.fail(from_exception(error))
            return
        with contextlib.suppress(InvalidStateError):  # the caller has left, or a piece has failed
            self.outputs.set_result(values)

    def fail(self, error: ServingError) -> None:
        with contextlib.suppress(InvalidStateError):
            self.outputs.set_exception(error)
