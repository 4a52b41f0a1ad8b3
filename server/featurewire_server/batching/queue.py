"""The waiting tasks of one signature: one line per class, with round robin between callers."""

from __future__ import annotations

import math
from bisect import insort
from typing import Any

from featurewire_server.batching.config import BatchingConfig
from featurewire_server.batching.estimate import LatencyEstimate
from featurewire_server.batching.policy import POLICY
from featurewire_server.batching.task import Task
from featurewire_server.common.errors import unavailable


class Line:
    """The waiting tasks of one class, in the order in which they run.

    Round robin: every caller's first waiting task precedes any caller's second one.
    """

    def __init__(self, queue: Queue, *, bulk: bool) -> None:
        self.queue = queue
        self.bulk = bulk
        self.tasks: list[Task] = []
        self.rows = 0
        self.served = 0
        """The number of its last batch, in the schedule's count."""
        self._turn = 0
        """The turn of the last task that a batch took."""

    def __bool__(self) -> bool:
        return bool(self.tasks)

    def turn_of(self, task: Task) -> int:
        """The turn of a task that arrives now."""
        own = (each.turn + 1 for each in self.tasks if each.caller == task.caller)
        return max([self._turn, *own])

    def add(self, task: Task) -> None:
        task.turn = self.turn_of(task)
        insort(self.tasks, task, key=lambda each: each.turn)
        self.rows += task.left

    def remove(self, task: Task) -> None:
        """Remove a task if it is waiting."""
        if task in self.tasks:
            self.tasks.remove(task)
            self.rows -= task.left

    def take(self, task: Task, rows: int) -> None:
        """Move this many rows of a task to a batch."""
        self._turn = max(self._turn, task.turn)
        if rows == task.left:
            self.remove(task)
        else:
            self.rows -= rows
        task.taken += rows


class ClosedLoop:
    """Detects callers that call again as soon as they are answered."""

    def __init__(self) -> None:
        self.usual = False
        """Whether at least half of the rows of the batch before the last one came back."""
        self.missing = 0
        """Rows of the last batch that have not come back."""
        self.ended_at = -math.inf
        """When the last batch ended."""
        self._rows = 0

    def ended(self, rows: int, now: float) -> None:
        """A batch has ended and its callers are answered."""
        self.usual = 2 * self.missing <= self._rows > 0
        self.ended_at, self._rows, self.missing = now, rows, rows

    def came(self, rows: int, now: float) -> None:
        if now - self.ended_at <= POLICY.handover_seconds:
            self.missing = max(self.missing - rows, 0)


class Queue:
    """The waiting tasks of one signature and set of outputs of one version."""

    def __init__(
        self,
        config: BatchingConfig,
        *,
        splits: bool = False,
        side_by_side: bool = False,
        pads: bool = True,
        owner: Any = None,
        key: Any = None,
    ) -> None:
        self.config = config
        self.largest = config.execution_size
        """Rows of the largest batch that runs."""
        powers = (1 << bit for bit in range(self.largest.bit_length()))
        below = (size for size in powers if size < self.largest)
        self.sizes = config.allowed_sizes or (*below, self.largest)
        """Batch sizes to choose from, in increasing order."""
        self.splits = splits
        """Whether a task may run in pieces, because its rows are independent."""
        self.side_by_side = side_by_side
        """Whether batches compute at the same time, not one after the other; see `engine`."""
        self.pads = pads
        """Whether batches are padded to an allowed size; see `engine`."""
        self.owner = owner
        self.key = key
        self.estimate = LatencyEstimate()
        self.loop = ClosedLoop()
        self.lines = {bulk: Line(self, bulk=bulk) for bulk in (False, True)}
        """Keys: whether the line is bulk."""
        self.refused_at = -math.inf
        """When a task was last refused because of its deadline."""

    def __len__(self) -> int:
        """Batches enqueued."""
        return sum(self.batches(line) for line in self.lines.values())

    def batches(self, line: Line, task: Task | None = None) -> int:
        """Number of waiting batches of a line, if this task is added."""
        if not self.config.merge:
            return len(line.tasks) + bool(task)
        return -(-(line.rows + (task.rows if task else 0)) // self.largest)

    def overloaded(self, now: float) -> bool:
        return now - self.refused_at < POLICY.recent_seconds

    def make_room(self, task: Task) -> None:
        """If the queue is full, drop the last task of a caller with more tasks than this one's.

        Raises UNAVAILABLE if every other caller has fewer.
        """
        line, most = self.lines[task.bulk], self.config.max_enqueued_batches
        while self.batches(line, task) > most:
            error = unavailable(
                "The batch scheduling queue to which this task was submitted is full; "
                f"currently {self.batches(line)} batches enqueued and "
                f"max_enqueued_batches is {most}: send less at once, raise it, or add servers",
                retry_after=self.seconds(min(line.rows, self.largest)) or None,
                reason="queue",
            )
            if not line or line.tasks[-1].turn <= line.turn_of(task):
                raise error
            last = line.tasks[-1]
            line.remove(last)
            last.fail(error)

    def shape(self, task: Task) -> object:
        """Dtypes and shapes, the same for all tasks of a batch, so that none makes others fail."""
        trimmed = (lambda shape: len(shape)) if self.config.pad_variable_length else tuple
        return tuple(
            (name, array.dtype.str, trimmed(array.shape[1:]))
            for name, array in sorted(task.inputs.items())
        )

    def seconds(self, rows: int) -> float:
        """Expected time of a batch; 0 before the first measurement."""
        return self.estimate.expected(self.padded(rows))

    def least(self, rows: int, since: float) -> float:
        """Lower bound for the time of a batch; see `LatencyEstimate.least`."""
        return self.estimate.least(self.padded(rows), since)

    def needed(self, rows: int) -> float:
        """Expected time of a batch plus the safety margin."""
        return self.seconds(rows) * (1 + POLICY.margin)

    def in_time(self, task: Task, rows: int, start: float) -> bool:
        """Whether a batch of `rows` that starts to compute at `start` ends before the deadline."""
        return task.deadline is None or start + self.needed(rows) <= task.deadline

    def padded(self, rows: int) -> int:
        """Number of rows including padding."""
        allowed = self.config.allowed_sizes if self.pads else ()
        return next((size for size in allowed if size >= rows), rows)
