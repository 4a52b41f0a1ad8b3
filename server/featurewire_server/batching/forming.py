"""Chooses which rows of a line form the next batch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from featurewire_server.batching.batch import Piece
from featurewire_server.batching.queue import Line, Queue
from featurewire_server.batching.task import Task


def choose(line: Line, *, most: int, now: float, start: float, since: float) -> list[Piece]:
    """The pieces of the next batch.

    `most`: maximum rows; `start`: when the batch starts to compute; `since`: see `admission`.
    """
    queue = line.queue
    tasks = [task for task in line.tasks if task.alive(now)]
    if queue.overloaded(now):
        tasks = [task for task in tasks if _can_be_in_time(queue, task, start, since)] or tasks
        if queue.config.merge:
            sizes = (most, *(size for size in queue.sizes if size < most))
            answers = {size: _answers(line, tasks, size, start) for size in sizes}
            size = max(sizes, key=answers.__getitem__)
            if answers[size]:
                most, tasks = size, [task for task in tasks if queue.in_time(task, size, start)]
    return _pick(line, tasks, most=most, start=start)


def _can_be_in_time(queue: Queue, task: Task, start: float, since: float) -> bool:
    """Whether a batch of only this task could meet the deadline, by the lower bound."""
    least = queue.least(min(task.left, queue.largest), since)
    return task.deadline is None or start + least <= task.deadline


def _answers(line: Line, tasks: Iterable[Task], size: int, start: float) -> float:
    """Rows per second that a batch of this size answers in time.

    Each caller counts only with the rows that the round robin would give it in such a batch. So
    callers with long timeouts do not push out those with short ones.
    """
    queue, room = line.queue, size
    turns: Counter[object] = Counter()
    ready: Counter[object] = Counter()
    for task in tasks:
        turns[task.caller] += min(task.left, room)
        room -= min(task.left, room)
        if queue.in_time(task, size, start):
            ready[task.caller] += task.left
    return (turns & ready).total() / (queue.seconds(size) or 1.0)


def _pick(line: Line, tasks: Iterable[Task], *, most: int, start: float) -> list[Piece]:
    """The first tasks of the line, as many as the tightest deadline in the batch allows.

    A task that would be late even without the others does not limit the batch.
    """
    queue = line.queue
    splits = queue.config.split or (line.bulk and queue.splits)
    pieces: list[Piece] = []
    rows, tightest = 0, math.inf
    for task in tasks:
        if rows >= most or (rows and not queue.config.merge):
            break
        if rows and queue.shape(task) != queue.shape(pieces[0].task):
            break
        size = min(task.left, most - rows) if splits else task.left
        if rows and rows + size > most:
            break
        if task.deadline is not None and queue.in_time(task, size, start):
            tightest = min(tightest, task.deadline)
        if rows and start + queue.needed(rows + size) > tightest:
            break
        pieces.append(Piece(task, task.taken, task.taken + size))
        rows += size
    return pieces
