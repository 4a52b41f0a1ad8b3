"""Which tasks of a line the next batch takes, and which of them are hopeless.

Decides only: `schedule` lets the ones run and drops the others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from featurewire_server.batching.batch import Piece
from featurewire_server.batching.queue import Line, Queue
from featurewire_server.batching.task import Task

Choice = tuple[list[Piece], list[Task]]


def choose(queue: Queue, line: Line, *, most: int, now: float, start: float, alone: bool) -> Choice:
    """The pieces of the next batch of a line, and the tasks to drop.

    `most`: rows that the batch may have; `start`: when it starts to compute; `alone`: nothing else
    runs.
    """
    tasks, hopeless = [], []
    overloaded = queue.config.merge and queue.overloaded(now)
    rows = 0
    for task in line.turns():
        if is_hopeless(queue, task, now):
            hopeless.append(task)
            continue
        tasks.append(task)
        rows += task.left
        if not overloaded and rows >= most:
            break
    size = _size_with_most_answers(queue, tasks, most=most, start=start) if overloaded else 0
    if size:
        tasks = [task for task in tasks if queue.in_time(task, size, start)]
    pieces = _pick(queue, line, tasks, most=size or most, start=start)
    return pieces if alone else _without_padding(queue, pieces), hopeless


def is_hopeless(queue: Queue, task: Task, now: float) -> bool:
    """Whether a task's deadline cannot be met even if its batch is as fast as any recent one."""
    if not task.alive(now):
        return True
    if task.deadline is None or task.probe:
        return False
    return now + queue.estimate.least(min(task.left, queue.largest)) > task.deadline


def _size_with_most_answers(queue: Queue, tasks: list[Task], *, most: int, start: float) -> int:
    """The size of batch that answers most rows per second in time; 0 if none answers any.

    A caller's rows count as far as it is their turn: those with more time push nobody out.
    """

    def answers(size: int) -> float:
        turns: Counter[object] = Counter()
        ready: Counter[object] = Counter()
        room = size
        for task in tasks:
            turns[task.caller] += min(task.left, room)
            room -= min(task.left, room)
            if queue.in_time(task, size, start):
                ready[task.caller] += task.left
        return (turns & ready).total() / (queue.seconds(size) or 1.0)

    best = max((most, *(size for size in queue.sizes() if size < most)), key=answers)
    return best if answers(best) else 0


def _pick(
    queue: Queue, line: Line, tasks: Iterable[Task], *, most: int, start: float
) -> list[Piece]:
    """Tasks in their order, as many as all deadlines in the batch leave time for.

    A task that is late already, by the expected time of its own rows, bounds nothing.
    """
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


def _without_padding(queue: Queue, pieces: list[Piece]) -> list[Piece]:
    """Leave out what only padding could round up to an allowed size: it waits for the next batch.

    Only where another batch runs, so that waiting costs no time of the machine.
    """
    rows = sum(piece.rows for piece in pieces)
    allowed = queue.config.allowed_sizes if queue.pads else ()
    full = max((size for size in allowed if size <= rows), default=rows)
    kept, have = [], 0
    for piece in pieces:
        if have + piece.rows > full:
            break
        kept.append(piece)
        have += piece.rows
    return kept or pieces
