"""What waits for one signature: a line a class, in which callers take turns; how long batches take.

Decides no order between queues (`schedule` does); no threads, no clock, no engine.
"""

from __future__ import annotations

import statistics
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any

from featurewire_server.batching.config import BatchingConfig
from featurewire_server.batching.returns import Returns
from featurewire_server.batching.task import Task
from featurewire_server.common.errors import unavailable

PRESSED = 5.0
"""Seconds for which a queue counts as pressed after it has refused a task for want of time."""
RATED_SIZES = 64
"""Sizes of batches whose times are kept."""
RECENT = 4
"""Batches that tell how fast the machine is at the moment."""
WEIGHT = 0.1
"""Of a new batch in the time of its size."""


class Rates:
    """Seconds a batch of each size, times how fast the machine is at the moment.

    The first batch of a size is not counted: it may compile. The speed is that of the last batches
    of any size: of the second slowest of them, because an answer that was promised and comes too
    late costs more than one that was refused. So one batch that was held up changes nothing, and a
    machine that has become slow is known after two.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._base: dict[int, float] = {}
        self._speeds: deque[float] = deque(maxlen=RECENT)

    def observe(self, size: int, seconds: float) -> None:
        if size not in self._seen:
            if len(self._seen) < RATED_SIZES:
                self._seen.add(size)
            return
        base = self._base.get(size)
        if base is None:
            self._base[size] = max(seconds, 1e-6) / self._usual_speed()
            return
        self._speeds.append(seconds / base)
        fair = min(max(seconds / self._usual_speed(), base / 2), base * 2)
        self._base[size] = base + WEIGHT * (fair - base)

    def seconds(self, size: int) -> float | None:
        """How long a batch of `size` rows will take; None while nothing is measured.

        Never more than smaller batches one after the other: else a size that was slow once would
        never be tried again.
        """
        if not self._base:
            return None
        smaller = [
            base * (size // rows) + self._at_most(size % rows)
            for rows, base in self._base.items()
            if rows <= size
        ]
        if smaller:
            return min(smaller) * self._speed()
        rows = min(self._base)
        return self._base[rows] * size / rows * self._speed()

    def _at_most(self, size: int) -> float:
        """For `size` rows, in measured sizes, the largest first."""
        seconds = 0.0
        for rows in sorted(self._base, reverse=True):
            count, size = divmod(size, rows)
            seconds += count * self._base[rows]
        return seconds + (self._base[min(self._base)] if size else 0.0)

    def _speed(self) -> float:
        return sorted(self._speeds)[-2] if len(self._speeds) > 1 else 1.0

    def _usual_speed(self) -> float:
        return statistics.median(self._speeds) if self._speeds else 1.0


class Line:
    """The waiting tasks of one class. Callers take turns, each with its oldest task."""

    def __init__(self, *, bulk: bool) -> None:
        self.bulk = bulk
        self.tasks: OrderedDict[Task, None] = OrderedDict()
        """By arrival."""
        self.rows = 0
        self.served = 0
        """When its last batch was taken, in the schedule's count."""
        self.size = 1
        """Rows of its last batch."""
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
        """So many rows of a task go; its caller's next turn comes after all others'."""
        self._callers.move_to_end(task.caller)
        if rows == task.left:
            self.remove(task)
            task.taken += rows
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
        """Rows that run before a task that would come now: callers take turns."""
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


class Queue:
    """What waits for one signature and set of outputs of one version."""

    def __init__(
        self,
        config: BatchingConfig,
        *,
        rates: Rates | None = None,
        splits: bool = False,
        side_by_side: bool = False,
        pads: bool = True,
        owner: Any = None,
        key: Any = None,
    ) -> None:
        self.config = config
        self.largest = config.execution_size
        """Rows of the largest batch that runs."""
        self.rates = rates or Rates()
        self.returns = Returns()
        """Of its interactive tasks."""
        self.splits = splits
        """Whether rows are independent, so that a task may run in pieces."""
        self.side_by_side = side_by_side
        """Whether its batches compute at once, not one after the other; see `engine`."""
        self.pads = pads
        """Whether batches are padded to an allowed size; see `engine`."""
        self.owner = owner
        self.key = key
        self.lines = {bulk: Line(bulk=bulk) for bulk in (False, True)}
        """By whether they are bulk."""
        self.measured_at = -1e9
        """When a batch last ended."""
        self.refused_at = -1e9
        """When a task was last refused or dropped for want of time."""

    def pressed(self, now: float) -> bool:
        return now - self.refused_at < PRESSED

    def make_room(self, task: Task) -> None:
        """Where the queue is full, a caller with more tasks in it than this one gives way.

        Raises UNAVAILABLE where there is none.
        """
        line, most = self.lines[task.bulk], self.config.max_enqueued_batches
        while self._batches_with(line, task) > most:
            error = unavailable(
                "The batch scheduling queue to which this task was submitted is full; "
                f"currently {self.batches(line)} batches enqueued and "
                f"max_enqueued_batches is {most}",
                retry_after=self.seconds(self.sizes()[-1]),
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

    def __len__(self) -> int:
        """Batches enqueued."""
        return sum(self.batches(line) for line in self.lines.values())

    def batches(self, line: Line) -> int:
        if not self.config.merge:
            return len(line.tasks)
        return -(-line.rows // self.largest)

    def shape(self, task: Task) -> object:
        """What tasks of one batch must share, so that none can make the others fail."""
        trimmed = (lambda shape: len(shape)) if self.config.pad_variable_length else tuple
        return tuple(
            (name, array.dtype.str, trimmed(array.shape[1:]))
            for name, array in sorted(task.inputs.items())
        )

    def seconds(self, rows: int) -> float | None:
        return self.rates.seconds(self.padded(rows))

    def padded(self, rows: int) -> int:
        """Rows that a batch of `rows` computes."""
        allowed = self.config.allowed_sizes if self.pads else ()
        return next((size for size in allowed if size >= rows), rows)

    def sizes(self) -> tuple[int, ...]:
        """Sizes of batches to choose from, the smallest first."""
        powers = (1 << bit for bit in range(self.largest.bit_length()))
        below = (size for size in powers if size < self.largest)
        return self.config.allowed_sizes or (*below, self.largest)
