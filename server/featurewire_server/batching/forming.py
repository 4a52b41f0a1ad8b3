"""Which tasks of a line the next batch takes, and which of them come too late for it.

Decides only: `schedule` lets the ones run and drops the others.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from featurewire_server.batching.deadlines import in_time, must_end, needed
from featurewire_server.batching.queue import Line, Queue
from featurewire_server.batching.task import Piece, Task


@dataclass(frozen=True)
class Choice:
    pieces: list[Piece] = field(default_factory=list)
    late: list[Task] = field(default_factory=list)
    """Those that cannot be answered any more, or that nobody waits for."""

    @property
    def rows(self) -> int:
        return sum(piece.rows for piece in self.pieces)


def choose(queue: Queue, line: Line, *, most: int, now: float, start: float, alone: bool) -> Choice:
    """The next batch of a line: at most `most` rows, that start to compute at `start`.

    `alone`: nothing else runs.
    """
    pressed = queue.config.merge and queue.pressed(now)
    size = _most_answers(queue, line, most=most, now=now, start=start) if pressed else 0
    choice = _pick(queue, line, most=size or most, least=size, now=now, start=start)
    if not choice.pieces or not queue.config.merge:
        return choice
    choice.pieces.extend(_fill(queue, line, choice, now))
    return Choice(_whole_sizes(queue, choice, alone), choice.late)


def _most_answers(queue: Queue, line: Line, *, most: int, now: float, start: float) -> int:
    """The size of batch that answers most rows a second.

    A caller's rows count as far as it is their turn: those with more time push nobody out.
    """
    tasks = [task for task in line.turns() if task.alive(now)]

    def answers(size: int) -> float:
        turns: Counter[object] = Counter()
        ready: Counter[object] = Counter()
        room = size
        for task in tasks:
            turns[task.caller] += min(task.left, room)
            room -= min(task.left, room)
            if in_time(queue, task, size, start):
                ready[task.caller] += task.left
        return (turns & ready).total() / (queue.seconds(size) or 1.0)

    sizes = [size for size in queue.sizes() if size < most]
    return max((most, *reversed(sizes)), key=answers)


def _pick(queue: Queue, line: Line, *, most: int, least: int, now: float, start: float) -> Choice:
    """Tasks in their order, up to `most` rows, with time for a batch of `least` rows.

    Without `least`, the first one that has time for itself says how long the batch may take.
    """
    config = queue.config
    splits = config.split or (line.bulk and queue.splits)
    choice = Choice()
    rows, tightest = 0, math.inf
    for task in line.turns():
        if rows >= most or (rows and not config.merge):
            break
        if not task.alive(now):
            choice.late.append(task)
            continue
        if rows and queue.shape(task) != queue.shape(choice.pieces[0].task):
            break
        size = min(task.left, most - rows) if splits else task.left
        if rows and rows + size > most:
            break
        end = start + (needed(queue, max(rows + size, least)) or 0.0)
        bound = must_end(task)
        if end > bound and (least or not rows):
            choice.late.append(task)
            continue
        tightest = min(tightest, bound)
        if end > tightest:
            break
        choice.pieces.append(Piece(task, task.taken, task.taken + size))
        rows += size
    return choice


def _fill(queue: Queue, line: Line, choice: Choice, now: float) -> list[Piece]:
    """Rows of bulk in place of padding."""
    more: list[Piece] = []
    if line.bulk or not queue.splits:
        return more
    room = queue.padded(choice.rows) - choice.rows
    shape = queue.shape(choice.pieces[0].task)
    for task in queue.lines[True].turns():
        if room <= 0:
            break
        if task.alive(now) and queue.shape(task) == shape:
            size = min(task.left, room)
            more.append(Piece(task, task.taken, task.taken + size))
            room -= size
    return more


def _whole_sizes(queue: Queue, choice: Choice, alone: bool) -> list[Piece]:
    """Without what only padding could round up to an allowed size, where that saves time."""
    rows = choice.rows
    if not queue.pads:
        return choice.pieces
    full = max((size for size in queue.config.allowed_sizes if size <= rows), default=rows)
    if full == rows or (alone and not _two_are_faster(queue, rows, full)):
        return choice.pieces
    kept, have = [], 0
    for piece in choice.pieces:
        if have + piece.rows > full:
            break
        kept.append(piece)
        have += piece.rows
    return kept or choice.pieces


def _two_are_faster(queue: Queue, rows: int, full: int) -> bool:
    whole, first, second = map(queue.seconds, (rows, full, rows - full))
    if whole is None or first is None or second is None:
        return False
    return first + second < whole
