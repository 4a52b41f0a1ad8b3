"""One request's rows, which wait for an answer."""

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
        self.probe = False
        """Whether it was admitted regardless of the estimate, and so is never dropped by one."""
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
        """The outputs for the `rows` from row `start` on; the last piece answers the caller."""
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
