"""What waits for one signature: a line per class, in which callers take turns (round robin).

Decides no order between queues, which `schedule` does. No threads, no clock, no engine.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any

from featurewire_server.batching.config import BatchingConfig
from featurewire_server.batching.estimate import LatencyEstimate
from featurewire_server.batching.policy import POLICY
from featurewire_server.batching.task import Task
from featurewire_server.common.errors import unavailable


class Line:
    """The waiting tasks of one class. Callers take turns, each with its oldest task."""

    def __init__(self, *, bulk: bool) -> None:
        self.bulk = bulk
        self.tasks: OrderedDict[Task, None] = OrderedDict()
        """By arrival."""
        self.rows = 0
        self.served = 0
        """When its last batch was taken, in the schedule's count."""
        self._callers: OrderedDict[object, OrderedDict[Task, None]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self.tasks)

    @property
    def oldest(self) -> Task:
        return next(iter(self.tasks))

    def add(self, task: Task) -> None:
        self.tasks[task] = None
        self._callers.setdefault(task.caller, OrderedDict())[task] = None
        self.rows += task.left

    def remove(self, task: Task) -> None:
        """Forget a task; nothing happens if it does not wait."""
        if task not in self.tasks:
            return
        del self.tasks[task]
        self.rows -= task.left
        own = self._callers[task.caller]
        del own[task]
        if not own:
            del self._callers[task.caller]

    def take(self, task: Task, rows: int) -> None:
        """Let this many rows of a task go; its caller's next turn comes after all others'."""
        self._callers.move_to_end(task.caller)
        if rows == task.left:
            self.remove(task)
        else:
            self.rows -= rows
        task.taken += rows

    def turns(self) -> Iterator[Task]:
        """The tasks in the order in which they run."""
        callers = deque(iter(own) for own in self._callers.values())
        while callers:
            own = callers.popleft()
            task = next(own, None)
            if task is not None:
                yield task
                callers.append(own)

    def ahead_of(self, task: Task) -> int:
        """Rows that run before a task that comes now."""
        own = self._callers.get(task.caller, ())
        turns = len(own) + 1
        rows = sum(each.left for each in own)
        for caller, tasks in self._callers.items():
            if caller != task.caller:
                each = (task.left for task in tasks)
                rows += sum(left for _, left in zip(range(turns), each, strict=False))
        return rows

    def greediest(self) -> Task:
        """The last task of the caller who has most tasks waiting."""
        callers = self._callers
        return next(reversed(callers[max(callers, key=self.waiting_of)]))

    def waiting_of(self, caller: object) -> int:
        return len(self._callers.get(caller, ()))


class ClosedLoop:
    """Whether the callers of a queue call again as soon as they are answered."""

    def __init__(self) -> None:
        self.ended_at = -math.inf
        """When its last batch ended."""
        self.usual = False
        """Whether at least half of the batch before that came back."""
        self._rows = self._back = 0

    def ended(self, rows: int, now: float) -> None:
        """A batch has run; its callers are answered."""
        self.usual = self._rows > 0 and 2 * self._back >= self._rows
        self.ended_at, self._rows, self._back = now, rows, 0

    def came(self, rows: int, now: float) -> None:
        """A task has come."""
        if now - self.ended_at <= POLICY.handover_seconds:
            self._back += rows

    @property
    def missing(self) -> int:
        """Rows of the last batch that have not come back."""
        return max(self._rows - self._back, 0)


class Queue:
    """What waits for one signature and set of outputs of one version."""

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
        self.splits = splits
        """Whether rows are independent, so that a task may run in pieces."""
        self.side_by_side = side_by_side
        """Whether its batches compute at once, not one after the other; see `engine`."""
        self.pads = pads
        """Whether batches are padded to an allowed size; see `engine`."""
        self.owner = owner
        self.key = key
        self.estimate = LatencyEstimate()
        self.loop = ClosedLoop()
        self.lines = {bulk: Line(bulk=bulk) for bulk in (False, True)}
        """By whether they are bulk."""
        self.refused_at = -math.inf
        """When a task was last refused or dropped for want of time."""

    def __len__(self) -> int:
        """Batches enqueued."""
        return sum(self.batches(line) for line in self.lines.values())

    def batches(self, line: Line) -> int:
        if not self.config.merge:
            return len(line.tasks)
        return -(-line.rows // self.largest)

    def overloaded(self, now: float) -> bool:
        return now - self.refused_at < POLICY.recent_seconds

    def make_room(self, task: Task) -> None:
        """Where the queue is full, drop the last task of a caller with more tasks than this one's.

        Raises UNAVAILABLE where there is none.
        """
        line, most = self.lines[task.bulk], self.config.max_enqueued_batches
        while self._batches_with(line, task) > most:
            error = unavailable(
                "The batch scheduling queue to which this task was submitted is full; "
                f"currently {self.batches(line)} batches enqueued and "
                f"max_enqueued_batches is {most}: send less at once, raise it, or add servers",
                retry_after=self.seconds(min(line.rows, self.largest)) or None,
                reason="queue",
            )
            last = line.greediest() if line else task
            if line.waiting_of(last.caller) <= line.waiting_of(task.caller) + 1:
                raise error
            line.remove(last)
            last.fail(error)

    def _batches_with(self, line: Line, task: Task) -> int:
        if not self.config.merge:
            return len(line.tasks) + 1
        return -(-(line.rows + task.rows) // self.largest)

    def shape(self, task: Task) -> object:
        """What tasks of one batch must share, so that none can make the others fail."""
        trimmed = (lambda shape: len(shape)) if self.config.pad_variable_length else tuple
        return tuple(
            (name, array.dtype.str, trimmed(array.shape[1:]))
            for name, array in sorted(task.inputs.items())
        )

    def seconds(self, rows: int) -> float:
        """Expected time of a batch; 0 while nothing is measured."""
        return self.estimate.expected(self.padded(rows))

    def needed(self, rows: int) -> float:
        """Seconds that a batch should be given: what it may take if it is slower than usual."""
        return self.seconds(rows) * (1 + POLICY.margin)

    def in_time(self, task: Task, rows: int, start: float) -> bool:
        """Whether a task can be answered by a batch of `rows` that computes from `start` on."""
        return task.deadline is None or start + self.needed(rows) <= task.deadline

    def padded(self, rows: int) -> int:
        """Rows that a batch of `rows` computes."""
        allowed = self.config.allowed_sizes if self.pads else ()
        return next((size for size in allowed if size >= rows), rows)

    def sizes(self) -> tuple[int, ...]:
        """Sizes of batches to choose from, the smallest first."""
        powers = (1 << bit for bit in range(self.largest.bit_length()))
        below = (size for size in powers if size < self.largest)
        return self.config.allowed_sizes or (*below, self.largest)
