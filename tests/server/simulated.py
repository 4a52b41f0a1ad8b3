"""A machine with a virtual clock, which runs the batches of a real schedule."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

import numpy as np

from featurewire_server.batching.batch import Batch
from featurewire_server.batching.config import BatchingConfig
from featurewire_server.batching.queue import Queue
from featurewire_server.batching.schedule import Schedule
from featurewire_server.batching.task import Task, Terms
from featurewire_server.common.errors import ServingError

ONES = BatchingConfig(max_batch_size=1, max_enqueued_batches=10**6)
SIXTEEN = BatchingConfig(max_batch_size=16, allowed_sizes=(1, 2, 4, 8, 16), max_enqueued_batches=64)
TIMES = {1: 0.185, 2: 0.36, 4: 0.70, 8: 1.25, 16: 2.35}
"""Seconds of a float32 batch on two cores."""
CAPACITY = 16 / TIMES[16]


def new_queue(
    config: BatchingConfig = SIXTEEN,
    *,
    times: dict[int, float] | None = TIMES,
    side_by_side: bool = False,
    pads: bool = True,
) -> Queue:
    """`times`: what batches of each size have taken; None: nothing is measured."""
    queue = Queue(config, splits=config.merge, side_by_side=side_by_side, pads=pads)
    for size, seconds in (times or {}).items():
        for _ in range(2):  # the first one is not counted
            queue.estimate.observe(size, seconds, 0.0)
    return queue


def new_task(
    now: float = 0.0,
    *,
    rows: int = 1,
    timeout: float | None = None,
    caller: object = None,
    bulk: bool = False,
) -> Task:
    return Task(
        {"x": np.zeros((rows, 1))},
        Terms(
            deadline=None if timeout is None else now + timeout,
            caller=caller,
            bulk=bulk,
        ),
        enqueued=now,
    )


class Machine:
    """Runs a schedule's batches as engines do that take all cores."""

    def __init__(self, schedule: Schedule, seconds: Callable[[Batch], float]) -> None:
        self.schedule = schedule
        self.now = 0.0
        self.answered: list[tuple[Task, float]] = []
        self.refused: list[tuple[Task, ServingError]] = []
        self.batches: list[Batch] = []
        self.idle = 0.0
        """Seconds without a batch."""
        self._seconds = seconds
        self._left: dict[Batch, float] = {}
        """Seconds that each batch still needs if it runs alone."""
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0

    def at(self, when: float, do: Callable[[], object]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, do))

    def add(self, queue: Queue, task: Task) -> bool:
        try:
            self.schedule.add(queue, task, self.now)
        except ServingError as error:
            self.refused.append((task, error))
            return False
        return True

    def run(self, until: float) -> None:
        while True:
            while (batch := self.schedule.next(self.now)) is not None:
                self.batches.append(batch)
                self._left[batch] = self._seconds(batch)
                self.started(batch)
            first, ends_at = self._first_to_end()
            event_at = self._events[0][0] if self._events else until
            when = min(ends_at, event_at, self.schedule.wake_at)
            if when >= until:
                self._compute(max(until - self.now, 0.0))
                self.now = max(until, self.now)
                return
            self._compute(max(when, self.now) - self.now)
            self.now = max(when, self.now)
            if ends_at <= when:
                self._end(first)
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()

    def started(self, batch: Batch) -> None:
        """Called when a batch has started."""

    def ended(self, batch: Batch) -> None:
        """Called when a batch has ended."""

    def _first_to_end(self) -> tuple[Batch | None, float]:
        working = self._working()
        if not working:
            return None, math.inf
        batch = min(working, key=self._left.get)
        return batch, self.now + len(working) * self._left[batch]

    def _compute(self, seconds: float) -> None:
        working = self._working()
        if not working:
            self.idle += seconds
        for batch in working:
            self._left[batch] -= seconds / len(working)

    def _working(self) -> list[Batch]:
        """Those of one queue."""
        batches = list(self._left)
        return batches if batches and batches[0].queue.side_by_side else batches[:1]

    def _end(self, batch: Batch) -> None:
        del self._left[batch]
        self.schedule.finished(batch, self.now)
        self.ended(batch)
        for piece in batch.pieces:
            piece.task.deliver(piece.start, {}, piece.rows)
            if not piece.task._missing:
                self.answered.append((piece.task, self.now))


def by_table(batch: Batch) -> float:
    return TIMES[batch.size]
