"""When a task that comes now would be answered: from what runs, what waits, and measured times."""

from __future__ import annotations

from collections.abc import Iterable

from .batch_queue import Line, Queue
from .task import Batch, Task

BULK_SHARE = 0.2
"""Of the time while both classes wait: what bulk gets at least."""
LEAD = 0.15
"""Seconds before the end of what runs at which the next batch starts, so that its decoding overlaps
with it. Sooner would only fix what is in it."""
MARGIN = 0.1
"""By which a batch may take longer than expected."""
ANSWER_SECONDS = 0.02
"""From the end of a batch until its answers are there."""
WINDOW = 0.85
"""Share of its time that a call may spend in its batch where the server is pressed: the rest is for
tasks to come in and fill it."""


def horizon(running: Iterable[Batch], now: float) -> float:
    """Seconds until what runs has ended, as far as it is known."""
    total = 0.0
    for batch in running:
        if batch.seconds is None:
            continue
        left = batch.seconds if total else batch.seconds - (now - batch.began)
        total += max(left, 0.0)
    return total


def needed(queue: Queue, rows: int) -> float | None:
    """Seconds that a batch of `rows` should be given; None: nothing is measured."""
    seconds = queue.seconds(rows)
    return None if seconds is None else seconds * (1 + MARGIN) + ANSWER_SECONDS


def pressed_size(queue: Queue, seconds: float) -> int:
    """Rows of the largest batch that calls with so many seconds can fill and still be answered."""
    fitting = [
        size for size in queue.sizes() if (needed(queue, size) or 0.0) + LEAD <= WINDOW * seconds
    ]
    return max(fitting, default=queue.sizes()[0])


def until_answer(
    queue: Queue, task: Task, others: Iterable[Queue], *, busy: float, size: int, pressed: bool
) -> float:
    """Seconds until `task` is answered if its queue runs batches of `size` rows.

    `busy`: seconds until what runs has ended. Interactive tasks come before bulk, but for its
    share; of each other queue at most one batch comes between two of this one.
    """
    others = [other for other in others if other is not queue]
    line = queue.lines[task.bulk]
    work, batches = _own_work(queue, line, task, size, pressed)
    for other in others:
        work += _between(other, other.lines[task.bulk], batches)
    everyone = [queue, *others]
    if task.bulk:
        work += sum(_whole(other, other.lines[False]) for other in everyone)
    elif any(other.lines[True] for other in everyone):
        work /= 1 - BULK_SHARE
    return busy + work * (1 + MARGIN) + ANSWER_SECONDS


def _own_work(queue: Queue, line: Line, task: Task, size: int, pressed: bool) -> tuple[float, int]:
    """Seconds of this queue's batches up to the task's last, and how many there are."""
    ahead = line.ahead_of(task)
    if not queue.config.merge:
        count = -(-ahead * len(line.tasks) // line.rows) if line else 0
        mean = max(line.rows // len(line.tasks), 1) if line else 1
        return count * (queue.seconds(mean) or 0.0) + (queue.seconds(task.rows) or 0.0), count + 1
    full, rest = divmod(ahead + task.rows, size)
    work = full * (queue.seconds(size) or 0.0)
    if rest:
        work += queue.seconds(size if pressed else rest) or 0.0
    return work, full + bool(rest)


def _between(other: Queue, line: Line, batches: int) -> float:
    """Seconds that batches of another queue take between so many of this one."""
    waiting = other.batches(line)
    if not waiting:
        return 0.0
    rows = min(-(-line.rows // waiting), other.config.execution_size)
    return min(waiting, batches) * (other.seconds(rows) or 0.0)


def _whole(queue: Queue, line: Line) -> float:
    """Seconds for all that waits in a line."""
    return _between(queue, line, queue.batches(line))
