"""What runs next: the policy over all queues of all versions. No threads, no clock, no engine.

- Two classes. Interactive tasks go first; while both wait, bulk gets `BULK_SHARE` of the time.
- Within a class the queue whose last batch is longest ago is next, the one with the oldest task if
  they never had one. So a task whose batch is due waits for at most one batch of each other queue.
- Within a queue callers take turns.
- A task that cannot be answered before its deadline is refused at once, one that waits is dropped
  as soon as that is so (`deadlines`), and a batch takes no more rows than its tasks have time for
  (`forming`).
- While interactive tasks come, batches of bulk are short.
- The next batch starts when what runs is nearly done, so that it takes what has come by then. While
  nothing is measured, everything is admitted and starts at once.
- Where callers come back as soon as they are answered (`returns`) and no bulk waits, a small batch
  waits for those of the one before it.
"""

from __future__ import annotations

import math

from featurewire_server.batching import deadlines, forming
from featurewire_server.batching.deadlines import BULK_SHARE, Deadlines, lead
from featurewire_server.batching.queue import Line, Queue
from featurewire_server.batching.returns import SOON
from featurewire_server.batching.task import Batch, Task, TaskTooLarge

BULK_SECONDS = 1.3
"""What a batch of bulk takes at most while interactive tasks come."""
BULK_ROWS = 4
"""The same while nothing is measured."""
CALM = 10.0
"""Seconds without an interactive task after which batches of bulk are large again."""
SHORT = 0.05
"""Seconds; batches that take no longer start whatever else runs."""
LARGE_ENOUGH = 8
"""Rows of a batch that waits for nobody: more at once are hardly faster, and while those of one
batch come and go another is better computed."""
LONG_ENOUGH = 0.02
"""Seconds of a batch that waits for others: a shorter one has run before they are back."""
PATIENCE, MOST_PATIENCE = 0.1, SOON
"""For how much of its own time a batch waits for callers to come back, and seconds at most: who
comes later is not counted as one who has come back."""
TICK = 0.001
"""Seconds; what is due so soon is due."""

Turn = tuple[Queue, Line]


class Running:
    """Batches that share the machine.

    Each is charged with the time that it has the machine for itself: engines compute batches side
    by side, each with its part of the machine, or one after the other. Either way all have ended
    when what is left of each has passed.
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
        expected = {batch: batch.queue.rates.seconds(batch.size) for batch in self._batches}
        return sum(max((expected[batch] or 0.0) - batch.spent, 0.0) for batch in expected)

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
        """`threads`: batches that run at once; `unbatched`: tasks without batching besides."""
        self._most = {True: threads, False: unbatched}
        self._queues: dict[Queue, None] = {}
        """Those in which something waits."""
        self._running = Running()
        self._deadlines = Deadlines()
        self._count = 0
        """Of all that came and all that started."""
        self._owed = 0.0
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
        busy = self._running.left(now) if self._running else None
        deadlines.check(queue, task, self._queues, busy=busy, now=now)
        queue.make_room(task)
        self._count += 1
        task.order = self._count
        if not task.bulk:
            self._interactive_at = now
            queue.returns.came(task.rows, now)
        queue.lines[task.bulk].add(task)
        self._queues[queue] = None
        self._deadlines.watch(queue, task)

    def check(self, queue: Queue, task: Task, now: float) -> None:
        """Raise RESOURCE_EXHAUSTED if `task` came too late to be answered in time: to be asked
        before a request is parsed. An idle schedule lets it come, and judges then."""
        if self._queues or self.running:
            deadlines.check(queue, task, self._queues, busy=self._running.left(now), now=now)

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
        for queue, task in self._deadlines.late(now):
            self._drop(queue, task, now)
        if not self._queues:
            self._deadlines.clear()
        self.wake_at = self._deadlines.next_at
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
            batch.queue.returns.ended(batch.rows, now)
        if rows and batch.spent > 0:
            batch.queue.rates.observe(rows, batch.spent)
            batch.queue.measured_at = now

    def _tidy(self, queue: Queue) -> None:
        if not any(queue.lines.values()):
            self._queues.pop(queue, None)
        if not self._bulk_waits:
            self._owed = 0.0

    @property
    def _bulk_waits(self) -> bool:
        return any(queue.lines[True] for queue in self._queues)

    def _drop(self, queue: Queue, task: Task, now: float) -> None:
        self.remove(queue, task)
        if task.alive(now):
            queue.refused_at = now
            task.fail(deadlines.too_late(queue, task))

    def _whose_turn(self, now: float) -> Turn | None:
        due = self._due(now)
        turn = self._first(due)
        if turn is None:
            return None
        busy, early = self._running.left(now), lead(*turn)
        if busy <= early + TICK:
            return turn
        self.wake_at = min(self.wake_at, now + busy - early)
        return self._first(_passing(due))

    def _due(self, now: float) -> list[Turn]:
        """Lines of which a batch may start."""
        found = []
        for queue in self._queues:
            merge = queue.config.merge
            if self._running.count(merge=merge) >= self._most[merge]:
                continue
            for line in queue.lines.values():
                at = self._due_at(queue, line)
                if at <= now + TICK:
                    found.append((queue, line))
                else:
                    self.wake_at = min(self.wake_at, at)
        return found

    def _due_at(self, queue: Queue, line: Line) -> float:
        """When the next batch of a line may start; infinite while it waits for one to end."""
        if not line:
            return math.inf
        if not queue.config.merge or line.rows >= queue.largest:
            return -math.inf
        # To wait for them makes nobody late.
        back_at = min(self._back_at(queue, line), self._deadlines.next_at - 2 * TICK)
        return max(line.oldest.enqueued + queue.config.timeout, back_at)

    def _back_at(self, queue: Queue, line: Line) -> float:
        """Until when a batch waits for callers who are about to be answered, or just were."""
        # Batches that compute side by side have a part of the machine each, whatever their size.
        if line.bulk or queue.side_by_side or not queue.returns.usual:
            return -math.inf
        # It would start meanwhile and make them wait for all of it.
        if self._bulk_waits:
            return -math.inf
        running = self._running.interactive_rows(queue)
        rows = line.rows + (running or queue.returns.missing)
        if rows > LARGE_ENOUGH:
            return -math.inf
        seconds = queue.seconds(rows)
        if seconds is None or seconds < LONG_ENOUGH:
            return -math.inf
        if running:
            return math.inf
        return queue.returns.until(min(PATIENCE * seconds, MOST_PATIENCE))

    def _first(self, turns: list[Turn]) -> Turn | None:
        """The class whose turn it is, and in it the line whose last batch is longest ago."""
        firsts = {
            bulk: min(lines, key=lambda turn: (turn[1].served, turn[1].oldest.order))
            for bulk in (False, True)
            if (lines := [turn for turn in turns if turn[1].bulk is bulk])
        }
        bulk = firsts.get(True)
        if bulk is not None and self._owed >= _cost(bulk[0], BULK_ROWS):
            return bulk
        return firsts.get(False, bulk)

    def _form(self, queue: Queue, line: Line, now: float) -> Batch | None:
        """Take the first batch of a line; None if nobody in it could be answered any more."""
        choice = forming.choose(
            queue,
            line,
            most=self._most_rows(queue, line, now),
            now=now,
            start=now + self._running.left(now),
            alone=not self._running,
        )
        for task in choice.late:
            self._drop(queue, task, now)
        if not choice.pieces:
            self._tidy(queue)
            return None
        for piece in choice.pieces:
            queue.lines[piece.task.bulk].take(piece.task, piece.rows)
        batch = Batch(queue, pieces=choice.pieces, bulk=line.bulk)
        batch.size = queue.padded(batch.rows)
        return batch

    def _most_rows(self, queue: Queue, line: Line, now: float) -> int:
        """Rows of the largest batch now."""
        if not line.bulk or now - self._interactive_at > CALM:
            return queue.largest
        if queue.seconds(1) is None:
            return min(BULK_ROWS, queue.largest)
        short = [size for size in queue.sizes() if (queue.seconds(size) or 0.0) <= BULK_SECONDS]
        return max(short, default=queue.sizes()[0])

    def _start(self, batch: Batch, now: float) -> None:
        cost = _cost(batch.queue, batch.size)
        if batch.bulk:
            self._owed = max(self._owed - cost, 0.0)
        elif self._bulk_waits:
            self._owed += cost * BULK_SHARE / (1 - BULK_SHARE)
        self._count += 1
        line = batch.queue.lines[batch.bulk]
        line.served, line.size = self._count, batch.size
        self._running.start(batch, now)
        self._tidy(batch.queue)


def _passing(due: list[Turn]) -> list[Turn]:
    """Lines that need not wait for what runs: their batches are short, and their last one is longer
    ago than that of any line that waits."""
    short = [turn for turn in due if _is_short(*turn)]
    waiting = [turn for turn in due if turn not in short]
    return [
        (queue, line)
        for queue, line in short
        if all(line.served <= other.served for _, other in waiting if other.bulk is line.bulk)
    ]


def _is_short(queue: Queue, line: Line) -> bool:
    seconds = queue.seconds(min(line.rows, queue.largest))
    return seconds is None or seconds <= SHORT


def _cost(queue: Queue, rows: int) -> float:
    seconds = queue.seconds(rows)
    return 1.0 if seconds is None else seconds
