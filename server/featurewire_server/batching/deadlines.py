"""Refuses tasks that cannot be answered in time, and finds those that no longer can."""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection

from ..common.errors import ServingError, resource_exhausted
from . import estimates
from .queue import Queue
from .task import Task

TRIAL_AFTER = 5.0
"""Seconds without a measurement after which an idle server tries whether it is still too slow."""


class Deadlines:
    """The tasks that wait and have a deadline, by when they must start."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Task, Queue]] = []

    @property
    def next_at(self) -> float:
        """When the first one is late."""
        return self._heap[0][0] if self._heap else math.inf

    def watch(self, queue: Queue, task: Task) -> None:
        if task.deadline is not None and not task.trial:
            heapq.heappush(self._heap, (_latest_start(queue, task), task.order, task, queue))

    def late(self, now: float) -> list[tuple[Queue, Task]]:
        """Those that wait although no batch that starts now could answer them."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            _, _, task, queue = heapq.heappop(self._heap)
            if task not in queue.lines[task.bulk].tasks:
                continue
            if _latest_start(queue, task) > now:
                self.watch(queue, task)
            else:
                found.append((queue, task))
        return found

    def clear(self) -> None:
        """Nothing waits."""
        self._heap.clear()


def check(
    queue: Queue, task: Task, queues: Collection[Queue], *, busy: float | None, now: float
) -> None:
    """Raise RESOURCE_EXHAUSTED if `task` cannot be answered before its deadline.

    `queues`: those in which something waits; `busy`: seconds until what runs has ended, None if
    nothing runs. Where the server is idle and has measured nothing for a while, the task is let in
    as a trial: what was slow then need not be slow any more.
    """
    if task.deadline is None or queue.seconds(task.rows) is None:
        return
    left = task.deadline - now
    wait = estimates.until_answer(queue, task, queues, now=now, busy=busy or 0.0)
    if wait > left:
        if busy is None and not queues and now - queue.measured_at > TRIAL_AFTER:
            queue.measured_at = now
            task.trial = True
            return
        queue.refused_at = now
        raise resource_exhausted(
            f"The answer would take {wait:.1f} s and the deadline is in {max(left, 0.0):.1f} s",
            retry_after=max(wait - left, queue.seconds(task.rows) or 0.0),
        )


def too_late(queue: Queue, task: Task) -> ServingError:
    return resource_exhausted(
        "The request has waited and cannot be answered before its deadline any more",
        retry_after=queue.seconds(min(task.rows, queue.config.execution_size)),
    )


def _latest_start(queue: Queue, task: Task) -> float:
    assert task.deadline is not None
    rows = min(task.left, queue.config.execution_size)
    return task.deadline - (estimates.needed(queue, rows) or 0.0)
