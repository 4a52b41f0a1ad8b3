"""Which tasks can be answered before their deadlines, by what runs, what waits and measured times.

Refuses those that cannot, and finds those that no longer can.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterable

from featurewire_server.batching.queue import Line, Queue
from featurewire_server.batching.task import Task
from featurewire_server.common.errors import ServingError, resource_exhausted

TRIAL_AFTER = 5.0
"""Seconds without a measurement after which an idle server tries whether it is still too slow."""
BULK_SHARE = 0.2
"""Of the time while both classes wait: what bulk gets at least."""
LEAD = 0.06
"""Of its time: how long before the end of what runs a batch starts."""
LEAST_LEAD, MOST_LEAD = 0.02, 0.1
"""Seconds."""
MARGIN = 0.2
"""Of its time, by which a batch may end later than expected: it may take longer, and the one that
overlaps it may hold it up."""
ANSWER_SECONDS = 0.02
"""From the end of a batch until its answers are there."""
WINDOW = 0.85
"""Share of its time that a call may spend in its batch where the server is pressed: the rest is for
tasks to come in and fill it."""


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
    wait = until_answer(queue, task, queues, now=now, busy=busy or 0.0)
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
        retry_after=queue.seconds(min(task.rows, queue.largest)),
    )


def _latest_start(queue: Queue, task: Task) -> float:
    assert task.deadline is not None
    rows = min(task.left, queue.largest)
    return task.deadline - (needed(queue, rows) or 0.0)


def lead(queue: Queue, line: Line) -> float:
    """Seconds before the end of what runs at which the next batch of a line starts, so that its
    decoding overlaps with it. Sooner would only fix what is in it."""
    seconds = queue.seconds(min(line.rows, queue.largest))
    if seconds is None:
        return MOST_LEAD
    return min(max(LEAD * seconds, LEAST_LEAD), MOST_LEAD)


def needed(queue: Queue, rows: int) -> float | None:
    """Seconds that a batch of `rows` should be given; None: nothing is measured."""
    seconds = queue.seconds(rows)
    return None if seconds is None else seconds * (1 + MARGIN) + ANSWER_SECONDS


def pressed_size(queue: Queue, seconds: float) -> int:
    """Rows of the largest batch that calls with so many seconds can fill and still be answered."""
    fitting = [
        size
        for size in queue.sizes()
        if (needed(queue, size) or 0.0) + MOST_LEAD <= WINDOW * seconds
    ]
    return max(fitting, default=queue.sizes()[0])


def until_answer(
    queue: Queue, task: Task, queues: Iterable[Queue], *, now: float, busy: float
) -> float:
    """Seconds until `task`, which comes now, is answered.

    `queues`: those in which something waits; `busy`: seconds until what runs has ended. Interactive
    tasks come before bulk, but for its share; of each other queue at most one batch comes between
    two of this one.
    """
    others = [other for other in queues if other is not queue]
    waits = []
    for work, batches in _own_work(queue, task, now=now, start=now + busy):
        work += sum(_between(other, other.lines[task.bulk], batches) for other in others)
        if task.bulk:
            work += sum(_whole(other, other.lines[False]) for other in (queue, *others))
        elif any(other.lines[True] for other in (queue, *others)):
            work /= 1 - BULK_SHARE
        waits.append(busy + work * (1 + MARGIN) + ANSWER_SECONDS)
    return min(waits)


def _own_work(queue: Queue, task: Task, *, now: float, start: float) -> list[tuple[float, int]]:
    """Seconds of this queue's batches up to the task's last, and how many there are; for each size
    of batch that may be chosen."""
    line = queue.lines[task.bulk]
    ahead, rows = line.ahead_of(task), task.rows
    if not queue.config.merge:
        count = -(-ahead * len(line.tasks) // line.rows) if line else 0
        mean = max(line.rows // len(line.tasks), 1) if line else 1
        return [(count * _time(queue, mean) + _time(queue, rows), count + 1)]
    if queue.pressed(now) and task.deadline is not None:
        size = max(pressed_size(queue, task.deadline - now), rows)
        # Those ahead may have no time left for so large a batch.
        others = size if not line or in_time(queue, line.oldest, size, start) else line.size
        count = ahead // others
        return [(count * _time(queue, others) + _time(queue, size), count + 1)]
    found = []
    for size in queue.sizes():
        if size >= rows or queue.config.split:
            full, rest = divmod(ahead + rows, size)
            found.append((full * _time(queue, size) + _time(queue, rest), full + bool(rest)))
    return found


def in_time(queue: Queue, task: Task, rows: int, start: float) -> bool:
    """Whether a task can be answered by a batch of `rows` that computes from `start` on."""
    return start + (needed(queue, rows) or 0.0) <= must_end(task)


def must_end(task: Task) -> float:
    return math.inf if task.deadline is None or task.trial else task.deadline


def _time(queue: Queue, rows: int) -> float:
    return (queue.seconds(rows) or 0.0) if rows else 0.0


def _between(other: Queue, line: Line, batches: int) -> float:
    """Seconds that batches of another queue take between so many of this one."""
    waiting = other.batches(line)
    if not waiting:
        return 0.0
    rows = min(-(-line.rows // waiting), other.largest)
    return min(waiting, batches) * _time(other, rows)


def _whole(queue: Queue, line: Line) -> float:
    """Seconds for all that waits in a line."""
    return _between(queue, line, queue.batches(line))
