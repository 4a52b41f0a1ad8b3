"""What runs next: the policy over all queues of all versions. No threads, no clock, no engine.

- Two classes. Interactive tasks go first; while both wait, bulk gets `BULK_SHARE` of the time.
- Within a class the queue whose last batch is longest ago is next, the one with the oldest task if
  they never had one. So a task whose batch is due waits for at most one batch of each other queue.
- Within a queue callers take turns.
- A task that cannot be answered before its deadline is refused at once, one that waits is dropped
  as soon as that is so, and a batch takes no more rows than its tasks have time for.
- While interactive tasks come, batches of bulk are short.
- The next batch starts when what runs is nearly done, so that it takes what has come by then. While
  nothing is measured, everything is admitted and starts at once.
"""

from __future__ import annotations

import heapq
import math

from . import estimates
from .batch_queue import Line, Queue
from .errors import ServingError, resource_exhausted, unavailable
from .estimates import BULK_SHARE, LEAD
from .task import Batch, Piece, Task, TaskTooLarge

BULK_SECONDS = 1.3
"""What a batch of bulk takes at most while interactive tasks come."""
BULK_ROWS = 4
"""The same while nothing is measured."""
CALM = 10.0
"""Seconds without an interactive task after which batches of bulk are large again."""
CHEAP = 0.05
"""Seconds; batches that take no longer start whatever else runs."""
TICK = 0.001
"""Seconds; what is due so soon is due."""
PRESSED = 5.0
"""Seconds for which a queue counts as pressed after it has refused a task for want of time."""


class Schedule:
    """Holds what waits and what runs. `now` is in seconds, of any clock, and never goes back."""

    def __init__(self, *, threads: int, unbatched: int = 1) -> None:
        """`threads`: batches that run at once; `unbatched`: tasks without batching besides."""
        self._most = {True: threads, False: unbatched}
        self._queues: dict[Queue, None] = {}
        """Those in which something waits."""
        self._running: dict[Batch, None] = {}
        self._count = 0
        self._owed = 0.0
        """Seconds of its share that bulk has not had."""
        self._interactive_at = -math.inf
        self._latest: list[tuple[float, int, Task, Queue]] = []
        """By when a task with a deadline must start: a heap."""
        self.wake_at = math.inf
        """When to ask `next` again though nothing has happened; set by it."""

    @property
    def running(self) -> int:
        return len(self._running)

    # --- tasks come and go

    def add(self, queue: Queue, task: Task, now: float) -> None:
        """Let a task wait.

        Raises INVALID_ARGUMENT for a task too large, RESOURCE_EXHAUSTED where it cannot be
        answered in time, UNAVAILABLE where its queue is full.
        """
        config = queue.config
        if task.rows > config.max_batch_size:
            raise TaskTooLarge(task.rows, config.max_batch_size)
        self._check_time(queue, task, now)
        line = queue.lines[task.bulk]
        self._make_room(queue, line, task)
        self._count += 1
        task.order = self._count
        if not task.bulk:
            self._interactive_at = now
        line.add(task)
        self._queues[queue] = None
        if task.deadline is not None:
            heapq.heappush(self._latest, (self._latest_start(queue, task), task.order, task, queue))

    def remove(self, queue: Queue, task: Task) -> None:
        """Nobody waits for it any more."""
        queue.lines[task.bulk].remove(task)
        self._tidy(queue)

    def forget(self, queue: Queue) -> None:
        """A queue whose version goes."""
        for line in queue.lines.values():
            for task in list(line.tasks):
                line.remove(task)
        self._tidy(queue)

    def _tidy(self, queue: Queue) -> None:
        if not any(queue.lines.values()):
            self._queues.pop(queue, None)
        if not any(other.lines[True] for other in self._queues):
            self._owed = 0.0

    def _make_room(self, queue: Queue, line: Line, task: Task) -> None:
        """Where the queue is full, a caller with more tasks in it than this one gives way."""
        most = queue.config.max_enqueued_batches
        while self._batches_with(queue, line, task) > most:
            error = unavailable(
                "The batch scheduling queue to which this task was submitted is full; "
                f"currently {queue.batches(line)} batches enqueued and "
                f"max_enqueued_batches is {most}",
                retry_after=queue.seconds(queue.sizes()[-1]),
            )
            last = line.greediest() if line else task
            if line.waiting_of(last.caller) <= line.waiting_of(task.caller) + 1:
                raise error
            line.remove(last)
            last.fail(error)

    @staticmethod
    def _batches_with(queue: Queue, line: Line, task: Task) -> int:
        if not queue.config.merge:
            return len(line.tasks) + 1
        return -(-(line.rows + task.rows) // queue.config.execution_size)

    # --- time

    def horizon(self, now: float) -> float:
        """Seconds until what runs has ended."""
        return estimates.horizon(self._running, now)

    def _check_time(self, queue: Queue, task: Task, now: float) -> None:
        """Raise RESOURCE_EXHAUSTED if `task` cannot be answered before its deadline."""
        if task.deadline is None or queue.seconds(task.rows) is None:
            return
        left = task.deadline - now
        pressed = now - queue.refused_at < PRESSED
        if not queue.config.merge:
            sizes: list[int] = [task.rows]
        elif pressed:  # what can be filled to be fast goes before what could just be answered
            sizes = [max(estimates.pressed_size(queue, left), task.rows)]
        else:
            sizes = [size for size in queue.sizes() if size >= task.rows or queue.config.split]
        busy = self.horizon(now)
        wait = min(
            estimates.until_answer(queue, task, self._queues, busy=busy, size=size, pressed=pressed)
            for size in sizes
        )
        if wait > left:
            queue.refused_at = now
            raise resource_exhausted(
                f"The answer would take {wait:.1f} s and the deadline is in {max(left, 0.0):.1f} s",
                retry_after=max(wait - left, queue.seconds(task.rows) or 0.0),
            )

    def _latest_start(self, queue: Queue, task: Task) -> float:
        assert task.deadline is not None
        return task.deadline - (estimates.needed(queue, min(task.left, _most(queue))) or 0.0)

    def _drop_late(self, now: float) -> None:
        while self._latest and self._latest[0][0] <= now:
            _, order, task, queue = heapq.heappop(self._latest)
            if task not in queue.lines[task.bulk].tasks:
                continue
            latest = self._latest_start(queue, task)
            if latest > now:
                heapq.heappush(self._latest, (latest, order, task, queue))
            else:
                self._drop(queue, task, now)
        if not self._queues:
            self._latest.clear()

    def _drop(self, queue: Queue, task: Task, now: float) -> None:
        self.remove(queue, task)
        if task.alive(now):
            queue.refused_at = now
            task.fail(_too_late(queue, task))

    # --- batches

    def next(self, now: float) -> Batch | None:
        """The batch to start now, which then counts as running; None: see `wake_at`."""
        self._drop_late(now)
        self.wake_at = self._latest[0][0] if self._latest else math.inf
        while True:
            found = self._choose(now)
            if found is None:
                return None
            queue, bulk = found
            batch = self._form(queue, bulk, now)
            if batch is not None:
                self._start(batch, now)
                return batch

    def _choose(self, now: float) -> tuple[Queue, bool] | None:
        """The queue and class whose turn it is."""
        busy = self.horizon(now)
        ready: dict[bool, list[tuple[tuple[int, int], Queue]]] = {False: [], True: []}
        passing: list[tuple[bool, tuple[int, int], Queue]] = []
        """Short enough to start at once although others wait for what runs."""
        held = {False: math.inf, True: math.inf}
        """When the last batch was that is longest ago, of those which wait for what runs."""
        for queue in self._queues:
            merge = queue.config.merge
            if sum(each.queue.config.merge == merge for each in self._running) >= self._most[merge]:
                continue
            for bulk, line in queue.lines.items():
                if not line:
                    continue
                due, turn = self._due(queue, line), (line.served, line.oldest.order)
                if due > now + TICK:
                    self.wake_at = min(self.wake_at, due)
                elif busy <= LEAD + TICK:
                    ready[bulk].append((turn, queue))
                elif self._cheap(queue, line):
                    passing.append((bulk, turn, queue))
                else:
                    self.wake_at = min(self.wake_at, now + busy - LEAD)
                    held[bulk] = min(held[bulk], line.served)
        for bulk, turn, queue in passing:
            if turn[0] <= held[bulk]:  # else its turn has been
                ready[bulk].append((turn, queue))
        bulk = bool(ready[True]) and (
            not ready[False] or self._owed >= self._bulk_cost(ready[True])
        )
        if not ready[bulk]:
            return None
        return min(ready[bulk], key=lambda each: each[0])[1], bulk

    @staticmethod
    def _due(queue: Queue, line: Line) -> float:
        if not queue.config.merge or line.rows >= queue.config.execution_size:
            return -math.inf
        return line.oldest.enqueued + queue.config.timeout

    @staticmethod
    def _cheap(queue: Queue, line: Line) -> bool:
        seconds = queue.seconds(min(line.rows, _most(queue)))
        return seconds is None or seconds <= CHEAP

    @staticmethod
    def _bulk_cost(ready: list[tuple[tuple[int, int], Queue]]) -> float:
        seconds = min(ready, key=lambda each: each[0])[1].seconds(BULK_ROWS)
        return 1.0 if seconds is None else seconds

    def _start(self, batch: Batch, now: float) -> None:
        queue, line = batch.queue, batch.queue.lines[batch.bulk]
        batch.began = now
        batch.seconds = queue.rates.seconds(batch.size)
        cost = 1.0 if batch.seconds is None else batch.seconds
        if batch.bulk:
            self._owed = max(self._owed - cost, 0.0)
        elif any(other.lines[True] for other in self._queues):
            self._owed += cost * BULK_SHARE / (1 - BULK_SHARE)
        self._count += 1
        line.served = self._count
        self._running[batch] = None
        self._tidy(queue)

    def _form(self, queue: Queue, bulk: bool, now: float) -> Batch | None:
        """Take the first batch of a line; None if nobody in it could be answered any more."""
        pieces = self._pick(queue, bulk, now)
        if not pieces:
            self._tidy(queue)
            return None
        batch = Batch(queue, bulk=bulk)
        if queue.config.merge:
            pieces += self._fill(queue, bulk, pieces, now)
            pieces = self._whole_sizes(queue, pieces)
        for piece in pieces:
            queue.lines[piece.task.bulk].take(piece.task, piece.rows)
        batch.pieces = pieces
        batch.size = queue.config.padded(batch.rows)
        return batch

    def _pick(self, queue: Queue, bulk: bool, now: float) -> list[Piece]:
        line, config = queue.lines[bulk], queue.config
        start = now + self.horizon(now)
        limit = self._limit(queue, bulk, now)
        pieces: list[Piece] = []
        rows, tightest = 0, math.inf
        for task in list(line.turns()):
            if pieces and (not config.merge or queue.shape(task) != queue.shape(pieces[0].task)):
                break
            splits = config.split or (bulk and queue.splits)
            size = min(task.left, limit - rows) if splits else task.left
            if size <= 0 or (pieces and rows + size > limit):
                break
            bound = min(tightest, math.inf if task.deadline is None else task.deadline)
            late = start + (estimates.needed(queue, rows + size) or 0.0) > bound
            if not pieces and (late or not task.alive(now)):
                self._drop(queue, task, now)
                continue
            if not task.alive(now):
                self.remove(queue, task)
                continue
            if late:
                break
            pieces.append(Piece(task, task.taken, task.taken + size))
            rows, tightest = rows + size, bound
            if rows >= limit:
                break
        return pieces

    def _limit(self, queue: Queue, bulk: bool, now: float) -> int:
        """Rows of the largest batch now."""
        if not bulk or now - self._interactive_at > CALM:
            return queue.config.execution_size
        if queue.seconds(1) is None:
            return min(BULK_ROWS, queue.config.execution_size)
        short = [size for size in queue.sizes() if (queue.seconds(size) or 0.0) <= BULK_SECONDS]
        return max(short, default=queue.sizes()[0])

    @staticmethod
    def _fill(queue: Queue, bulk: bool, pieces: list[Piece], now: float) -> list[Piece]:
        """Rows of bulk in place of padding."""
        rows = sum(piece.rows for piece in pieces)
        room = queue.config.padded(rows) - rows
        more: list[Piece] = []
        if bulk or not queue.splits:
            return more
        shape = queue.shape(pieces[0].task)
        for task in queue.lines[True].turns():
            if room <= 0:
                break
            if task.alive(now) and queue.shape(task) == shape:
                size = min(task.left, room)
                more.append(Piece(task, task.taken, task.taken + size))
                room -= size
        return more

    def _whole_sizes(self, queue: Queue, pieces: list[Piece]) -> list[Piece]:
        """Without what only padding could round up to an allowed size, where that saves time."""
        rows = sum(piece.rows for piece in pieces)
        full = max((size for size in queue.config.allowed_sizes if size <= rows), default=rows)
        if full == rows or not (self._running or _parts_are_faster(queue, rows, full)):
            return pieces
        kept, have = [], 0
        for piece in pieces:
            if have + piece.rows > full:
                break
            kept.append(piece)
            have += piece.rows
        return kept or pieces

    def finished(self, batch: Batch, now: float, *, ok: bool = True) -> None:
        """A batch has run; `ok`: to its end, so that its time counts."""
        others = list(self._running)
        at = others.index(batch)
        del self._running[batch]
        if ok and now > batch.began:
            batch.queue.rates.observe(batch.size, now - batch.began)
        for later in others[at + 1 :]:
            later.began = max(later.began, now)


def _most(queue: Queue) -> int:
    """Rows of the largest batch; without batching a task may have any number."""
    return queue.config.execution_size


def _parts_are_faster(queue: Queue, rows: int, full: int) -> bool:
    whole, first, second = map(queue.seconds, (rows, full, rows - full))
    if whole is None or first is None or second is None:
        return False
    return first + second < whole


def _too_late(queue: Queue, task: Task) -> ServingError:
    return resource_exhausted(
        "The request has waited and cannot be answered before its deadline any more",
        retry_after=queue.seconds(min(task.rows, _most(queue))),
    )
