"""What runs next: the policy over all queues of all versions. No threads, no clock, no engine.

docs/server.md describes the policy under "Who goes first" and "Overload".
"""

from __future__ import annotations

import math

from featurewire_server.batching import forming
from featurewire_server.batching.admission import admit, too_little_time
from featurewire_server.batching.batch import Batch
from featurewire_server.batching.policy import POLICY
from featurewire_server.batching.queue import Line, Queue
from featurewire_server.batching.task import Task, TaskTooLarge

ROUNDING = 1e-6
"""Seconds by which sums of times may differ."""

Turn = tuple[Queue, Line]


class Running:
    """Batches that share the machine.

    Each is charged with the time for which it has the machine to itself: engines compute batches
    side by side, each with its part of the machine, or one after the other. Either way all have
    ended when what is left of each has passed.
    """

    def __init__(self) -> None:
        self._batches: dict[Batch, None] = {}
        self._charged_at = 0.0

    def __len__(self) -> int:
        return len(self._batches)

    def count(self, *, merge: bool) -> int:
        """Batches with batching, or without."""
        return sum(batch.queue.config.merge == merge for batch in self._batches)

    def interactive_rows(self, queue: Queue) -> int:
        batches = (batch for batch in self._batches if batch.queue is queue and not batch.bulk)
        return sum(batch.rows for batch in batches)

    def start(self, batch: Batch, now: float) -> None:
        self._charge(now)
        self._batches[batch] = None

    def end(self, batch: Batch, now: float) -> None:
        """`batch.spent` then says what it took by itself."""
        self._charge(now)
        del self._batches[batch]

    def left(self, now: float) -> float:
        """Seconds until all that runs has ended, as far as it is known by now."""
        self._charge(now)
        expected = (
            (batch.queue.estimate.proven(batch.size), batch.spent) for batch in self._batches
        )
        return sum(max(seconds - spent, 0.0) for seconds, spent in expected)

    def _charge(self, now: float) -> None:
        computing = self._computing()
        for batch in computing:
            batch.spent += (now - self._charged_at) / len(computing)
        self._charged_at = now

    def _computing(self) -> list[Batch]:
        """Of those that compute one after the other, the others decode or wait."""
        first = next((batch for batch in self._batches if not batch.queue.side_by_side), None)
        return [batch for batch in self._batches if batch is first or batch.queue.side_by_side]


class Schedule:
    """Holds what waits and what runs. `now` is in seconds, of any clock, and never goes back."""

    def __init__(self, *, threads: int, unbatched: int = 1) -> None:
        """`threads`: batches that run at once; `unbatched`: tasks without batching in addition."""
        self._most = {True: threads, False: unbatched}
        self._queues: dict[Queue, None] = {}
        """Those in which something waits."""
        self._running = Running()
        self._count = 0
        """All tasks that came and all batches that started."""
        self._deficit = 0.0
        """Seconds of its share that bulk has not had."""
        self._interactive_at = -math.inf
        self.wake_at = math.inf
        """When to ask `next` again though nothing has happened; set by it."""

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> bool:
        return bool(self._queues)

    def add(self, queue: Queue, task: Task, now: float) -> None:
        """Let a task wait.

        Raises INVALID_ARGUMENT for a task too large, RESOURCE_EXHAUSTED where it cannot be
        answered in time, UNAVAILABLE where its queue is full.
        """
        if task.rows > queue.config.max_batch_size:
            raise TaskTooLarge(task.rows, queue.config.max_batch_size)
        self._admit(queue, task, now)
        queue.make_room(task)
        self._count += 1
        task.order = self._count
        if not task.bulk:
            self._interactive_at = now
            queue.loop.came(task.rows, now)
        queue.lines[task.bulk].add(task)
        self._queues[queue] = None

    def check(self, queue: Queue, task: Task, now: float) -> None:
        """Raise RESOURCE_EXHAUSTED if a task like `task`, which is announced, would be refused."""
        self._admit(queue, task, now, announced=True)

    def _admit(self, queue: Queue, task: Task, now: float, *, announced: bool = False) -> None:
        busy = self._running.left(now) if self._running else None
        admit(queue, task, self._queues, busy=busy, now=now, announced=announced)

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

    def next(self, now: float) -> Batch | None:
        """The batch to start now, which then counts as running; None: see `wake_at`."""
        self.wake_at = math.inf
        while (turn := self._whose_turn(now)) is not None:
            batch = self._form(*turn, now)
            if batch is not None:
                self._start(batch, now)
                return batch
        return None

    def finished(self, batch: Batch, now: float, *, computed: int | None = None) -> None:
        """A batch has run; its time counts for `computed` rows (None: for all of them)."""
        rows = batch.size if computed is None else computed
        self._running.end(batch, now)
        if not batch.bulk:
            batch.queue.loop.ended(batch.rows, now)
        if rows and batch.spent > 0:
            batch.queue.estimate.observe(rows, batch.spent, now)

    def _tidy(self, queue: Queue) -> None:
        if not any(queue.lines.values()):
            self._queues.pop(queue, None)
        if not self._bulk_waits:
            self._deficit = 0.0

    @property
    def _bulk_waits(self) -> bool:
        return any(queue.lines[True] for queue in self._queues)

    def _whose_turn(self, now: float) -> Turn | None:
        """The line of which a batch starts now."""
        turn = self._first(self._due(now))
        if turn is None:
            return None
        queue, line = turn
        # A short batch need not wait for what runs: it delays nobody.
        if queue.seconds(min(line.rows, queue.largest)) <= POLICY.handover_seconds:
            return turn
        early = self._running.left(now) - POLICY.handover_seconds
        if early <= ROUNDING:
            return turn
        self.wake_at = min(self.wake_at, now + early)
        return None

    def _due(self, now: float) -> list[Turn]:
        """Lines of which a batch may start."""
        found = []
        for queue in self._queues:
            merge = queue.config.merge
            if self._running.count(merge=merge) >= self._most[merge]:
                continue
            for line in queue.lines.values():
                at = self._due_at(queue, line, now) if line else math.inf
                if at <= now + ROUNDING:
                    found.append((queue, line))
                else:
                    self.wake_at = min(self.wake_at, at)
        return found

    def _due_at(self, queue: Queue, line: Line, now: float) -> float:
        """When the next batch of a line may start; infinite while it waits for one to end."""
        if not queue.config.merge or line.rows >= queue.largest:
            return now
        at = max(line.oldest.enqueued + queue.config.timeout, self._back_at(queue, line))
        if at <= now:
            return now
        # To wait makes nobody late.
        ends = (task.deadline for task in line.tasks if task.deadline is not None)
        return min(at, min(ends, default=math.inf) - queue.needed(line.rows) - ROUNDING)

    def _back_at(self, queue: Queue, line: Line) -> float:
        """Until when a batch waits for callers of a closed loop, who call again once answered.

        Two small batches that take turns take longer than one of both. So a batch waits for the
        running one of its queue and then for its callers, if that saves a tenth of the time, and
        for no longer than it saves.
        """
        # Bulk would start in the meantime; side by side, each batch has its part of the machine.
        if line.bulk or queue.side_by_side or not queue.loop.usual or self._bulk_waits:
            return -math.inf
        running = self._running.interactive_rows(queue)
        others = running or queue.loop.missing
        together = queue.seconds(line.rows + others)
        saved = queue.seconds(line.rows) + queue.seconds(others) - together
        if line.rows + others > queue.largest or saved < POLICY.margin / 2 * together:
            return -math.inf
        if together <= POLICY.handover_seconds:
            return -math.inf
        return math.inf if running else queue.loop.ended_at + min(saved, POLICY.handover_seconds)

    def _first(self, turns: list[Turn]) -> Turn | None:
        """The class whose turn it is, and in it the line whose last batch is longest ago."""
        firsts = {
            bulk: min(lines, key=lambda turn: (turn[1].served, turn[1].oldest.order))
            for bulk in (False, True)
            if (lines := [turn for turn in turns if turn[1].bulk is bulk])
        }
        bulk = firsts.get(True)
        if bulk is not None and self._deficit > 0 and self._deficit >= _bulk_cost(*bulk):
            return bulk
        return firsts.get(False, bulk)

    def _form(self, queue: Queue, line: Line, now: float) -> Batch | None:
        """Take the first batch of a line; None if nobody in it could be answered any more."""
        pieces, hopeless = forming.choose(
            queue,
            line,
            most=self._most_rows(queue, line, now),
            now=now,
            start=now + self._running.left(now),
            alone=not self._running,
        )
        for task in hopeless:
            self._drop(queue, task, now)
        if not pieces:
            return None
        for piece in pieces:
            line.take(piece.task, piece.rows)
        batch = Batch(queue, pieces=pieces, bulk=line.bulk)
        batch.size = queue.padded(batch.rows)
        return batch

    def _drop(self, queue: Queue, task: Task, now: float) -> None:
        self.remove(queue, task)
        if task.alive(now) and task.deadline is not None:
            queue.refused_at = now
            needs = queue.needed(min(task.left, queue.largest))
            task.fail(too_little_time(needs, task.deadline - now, retry_after=needs))

    def _most_rows(self, queue: Queue, line: Line, now: float) -> int:
        """Rows of the largest batch now."""
        if not line.bulk or now - self._interactive_at > POLICY.interactive_seconds:
            return queue.largest
        return _short_rows(queue)

    def _start(self, batch: Batch, now: float) -> None:
        cost = batch.queue.seconds(batch.size)
        if batch.bulk:
            self._deficit = max(self._deficit - cost, 0.0)
        elif self._bulk_waits:
            self._deficit += cost * POLICY.bulk_share / (1 - POLICY.bulk_share)
        self._count += 1
        batch.queue.lines[batch.bulk].served = self._count
        self._running.start(batch, now)
        self._tidy(batch.queue)


def _bulk_cost(queue: Queue, line: Line) -> float:
    """Seconds of the next batch of bulk while interactive calls come."""
    return queue.seconds(min(line.rows, _short_rows(queue)))


def _short_rows(queue: Queue) -> int:
    """Rows of a batch of bulk while interactive calls come; few while nothing is measured."""
    sizes = queue.sizes()
    if not queue.seconds(1):
        return sizes[0]
    return max((s for s in sizes if queue.seconds(s) <= POLICY.bulk_seconds), default=sizes[0])
