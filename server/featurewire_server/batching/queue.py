"""The queue of one signature: a line per class, with round robin between the callers."""

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
    """The waiting tasks of one class (interactive or bulk), in the order in which they run.

    Round robin: the first waiting task of every caller comes before the second of any caller.
    """

    def __init__(self, queue: Queue, *, bulk: bool) -> None:
        self.queue = queue
        self.bulk = bulk
        self.tasks: list[Task] = []
        self.rows = 0
        self.served = 0
        """The number of the line's last batch; the schedule counts all batches."""
        self._turn = 0
        """The turn of the last task that was put into a batch."""

    def __bool__(self) -> bool:
        return bool(self.tasks)

    def turn_of(self, task: Task) -> int:
        """The round in which a task that arrives now will run."""
        own = (each.turn + 1 for each in self.tasks if each.caller == task.caller)
        return max([self._turn, *own])

    def ahead_of(self, task: Task) -> list[Task]:
        """The waiting tasks that run before a task that arrives now."""
        turn = self.turn_of(task)
        return [each for each in self.tasks if each.turn <= turn]

    def add(self, task: Task) -> None:
        task.turn = self.turn_of(task)
        insort(self.tasks, task, key=lambda each: each.turn)
        self.rows += task.left

    def remove(self, task: Task) -> None:
        """Remove a task if it is still waiting."""
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
    """Detects callers in a closed loop, which send the next call right after each answer."""

    def __init__(self) -> None:
        self.usual = False
        """Whether the callers of at least half of the rows of the last but one batch came back."""
        self.missing = 0
        """Rows of the last batch whose callers have not come back yet."""
        self.ended_at = -math.inf
        """When the last batch ended."""
        self._rows = 0

    def ended(self, rows: int, now: float) -> None:
        """Record the end of a batch, whose callers are answered now."""
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
        """Maximum rows per batch."""
        powers = (1 << bit for bit in range(self.largest.bit_length()))
        below = (size for size in powers if size < self.largest)
        self.sizes = config.allowed_sizes or (*below, self.largest)
        """Batch sizes to choose from, in increasing order."""
        self.splits = splits
        """Whether a task may be split, because its rows are independent."""
        self.side_by_side = side_by_side
        """Whether the engine computes several batches at the same time; see `engine`."""
        self.pads = pads
        """Whether batches are padded to an allowed size; see `engine`."""
        self.owner = owner
        self.key = key
        self.estimate = LatencyEstimate()
        self.loop = ClosedLoop()
        self.lines = {bulk: Line(self, bulk=bulk) for bulk in (False, True)}
        """The key says whether the line is bulk."""
        self.refused_at = -math.inf
        """Time of the last refusal because of a deadline."""

    def __len__(self) -> int:
        """Number of batches that the waiting tasks fill."""
        return sum(self.batches(line) for line in self.lines.values())

    def batches(self, line: Line, task: Task | None = None) -> int:
        """Number of batches that a line's tasks fill, including `task` if it is given."""
        if not self.config.merge:
            return len(line.tasks) + bool(task)
        return -(-(line.rows + (task.rows if task else 0)) // self.largest)

    def overloaded(self, now: float) -> bool:
        return now - self.refused_at < POLICY.recent_seconds

    def make_room(self, task: Task) -> None:
        """If the queue is full, drop the last task of the caller with the most waiting tasks.

        Raises UNAVAILABLE if that caller does not have more of them than the caller of `task`.
        """
        line, most = self.lines[task.bulk], self.config.max_enqueued_batches
        while self.batches(line, task) > most:
            error = unavailable(
                "The batch scheduling queue to which this task was submitted is full; currently "
                f"{self.batches(line)} batches enqueued and max_enqueued_batches is {most}; send "
                "less at once, raise max_enqueued_batches, or add servers",
                retry_after=self.seconds(min(line.rows, self.largest)) or None,
                reason="queue",
            )
            if not line or line.tasks[-1].turn <= line.turn_of(task):
                raise error
            last = line.tasks[-1]
            line.remove(last)
            last.fail(error)

    def shape(self, task: Task) -> object:
        """The dtypes and shapes of a task. All tasks of a batch have the same ones, so that one
        caller's task cannot make the others fail."""
        trimmed = (lambda shape: len(shape)) if self.config.pad_variable_length else tuple
        return tuple(
            (name, array.dtype.str, trimmed(array.shape[1:]))
            for name, array in sorted(task.inputs.items())
        )

    def seconds(self, rows: int) -> float:
        """Expected seconds of a batch of `rows`; 0 before the first measurement."""
        return self.estimate.expected(self.padded(rows))

    def least(self, rows: int, since: float) -> float:
        """Lower bound for the seconds of a batch; see `LatencyEstimate.least`."""
        return self.estimate.least(self.padded(rows), since)

    def needed(self, rows: int) -> float:
        """Expected seconds of a batch, plus the safety margin."""
        return self.seconds(rows) * (1 + POLICY.margin)

    def in_time(self, task: Task, rows: int, start: float) -> bool:
        """Whether a batch of `rows` that starts at `start` ends before the deadline of `task`."""
        return task.deadline is None or start + self.needed(rows) <= task.deadline

    def padded(self, rows: int) -> int:
        """Number of rows including padding."""
        allowed = self.config.allowed_sizes if self.pads else ()
        return next((size for size in allowed if size >= rows), rows)
