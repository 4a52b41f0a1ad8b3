"""Decides which batch runs next, over all queues of all versions.

This module uses neither threads nor a clock. docs/server.md describes the policy under
"Scheduling" and "Overload".
"""

from __future__ import annotations

import math
from collections import deque

from featurewire_server.batching import forming
from featurewire_server.batching.admission import admit
from featurewire_server.batching.batch import Batch, Piece
from featurewire_server.batching.policy import POLICY
from featurewire_server.batching.queue import Line, Queue
from featurewire_server.batching.running import Running
from featurewire_server.batching.task import Task, TaskTooLarge

ROUNDING = 1e-6
"""Tolerance for comparing sums of times, in seconds."""


class Schedule:
    """The waiting tasks and the running batches. `now`: seconds of any monotonic clock."""

    def __init__(self, *, threads: int, unbatched: int = 1) -> None:
        """`threads`: maximum running batches; `unbatched`: maximum running tasks without batching,
        in addition to those."""
        self._most = {True: threads, False: unbatched}
        self._queues: dict[Queue, None] = {}
        """Queues with waiting tasks."""
        self._running = Running()
        self._batches = 0
        """Number of batches started since the beginning."""
        self._ended_at: deque[float] = deque(maxlen=POLICY.kept)
        """When the last batches ended."""
        self._deficit = 0.0
        """Seconds of its share that bulk has not used yet (deficit round robin)."""
        self._interactive_at = -math.inf
        self.wake_at = math.inf
        """When to call `next` again if no task arrives and no batch ends before; set by `next`."""

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> bool:
        return bool(self._queues)

    def add(self, queue: Queue, task: Task, now: float) -> None:
        """Add a task to its queue.

        Raises INVALID_ARGUMENT for a task larger than a batch, RESOURCE_EXHAUSTED if its answer
        would be late, UNAVAILABLE if its queue is full.
        """
        if task.rows > queue.config.max_batch_size:
            raise TaskTooLarge(task.rows, queue.config.max_batch_size)
        self.check(queue, task, now)
        queue.make_room(task)
        queue.lines[task.bulk].add(task)
        self._queues[queue] = None
        if not task.bulk:
            self._interactive_at = now
            queue.loop.came(task.rows, now)

    def check(self, queue: Queue, task: Task, now: float) -> None:
        """Raise RESOURCE_EXHAUSTED if `task` cannot be answered before its deadline."""
        since = self._since(now)
        busy = self._running.left(now, since) if self._running else None
        admit(queue, task, self._queues, busy=busy, now=now, since=since)

    def _since(self, now: float) -> float:
        """The end of the oldest batch whose measurement may refuse a call.

        The last three batches always count, or three per queue if several queues have tasks.
        """
        recent = POLICY.recent_batches * max(len(self._queues), 1)
        ends = list(self._ended_at)[-recent:]
        return min([now - POLICY.recent_seconds, *ends[:1]])

    def remove(self, queue: Queue, task: Task) -> None:
        """Remove a task whose caller has left."""
        queue.lines[task.bulk].remove(task)
        self._tidy(queue)

    def forget(self, queue: Queue) -> None:
        """Remove all tasks of a queue whose version is unloaded."""
        for line in queue.lines.values():
            for task in list(line.tasks):
                line.remove(task)
        self._tidy(queue)

    def next(self, now: float) -> Batch | None:
        """The batch that starts now, or None until `wake_at`."""
        self.wake_at = math.inf
        while (line := self._whose_turn(now)) is not None:
            start = now + self._running.left(now)
            pieces = forming.choose(
                line, most=self._most_rows(line, now), now=now, start=start, since=self._since(now)
            )
            for task in [task for task in line.tasks if not task.alive(now)]:
                line.remove(task)
            if pieces:
                return self._start(line, pieces, now)
            self._tidy(line.queue)
        return None

    def finished(self, batch: Batch, now: float, *, computed: int | None = None) -> None:
        """Record the end of a batch. `computed`: number of rows that took time (None: all)."""
        rows = batch.size if computed is None else computed
        self._running.end(batch, now)
        self._ended_at.append(now)
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

    def _whose_turn(self, now: float) -> Line | None:
        """The line whose next batch starts now, or None."""
        line = self._first(self._due(now), now)
        if line is None:
            return None
        # A short batch starts at once, because it barely delays the running one.
        short = line.queue.seconds(min(line.rows, line.queue.largest)) <= POLICY.handover_seconds
        early = self._running.left(now) - POLICY.handover_seconds
        if short or early <= ROUNDING:
            return line
        self.wake_at = min(self.wake_at, now + early)
        return None

    def _due(self, now: float) -> list[Line]:
        """Lines whose next batch may start."""
        found = []
        for queue in self._queues:
            merge = queue.config.merge
            if self._running.count(merge=merge) >= self._most[merge]:
                continue
            for line in filter(None, queue.lines.values()):
                at = self._due_at(line, now)
                if at <= now + ROUNDING:
                    found.append(line)
                else:
                    self.wake_at = min(self.wake_at, at)
        return found

    def _due_at(self, line: Line, now: float) -> float:
        """When a line's next batch may start; infinity until a running batch ends."""
        queue = line.queue
        if not queue.config.merge or line.rows >= queue.largest:
            return now
        at = max(line.tasks[0].enqueued + queue.config.timeout, self._back_at(line))
        if at <= now:
            return now
        # The batch must start early enough for the first deadline.
        ends = (task.deadline for task in line.tasks if task.deadline is not None)
        return min(at, min(ends, default=math.inf) - queue.needed(line.rows) - ROUNDING)

    def _back_at(self, line: Line) -> float:
        """The time until which a batch waits for the callers of a closed loop.

        Infinity means until a running batch ends, minus infinity not at all.

        One batch with all callers takes less time than two small batches that alternate. So a
        batch waits until the running batch of its queue ends and the callers of that batch have
        sent their next calls, if this saves at least a tenth of the time.
        """
        queue, loop = line.queue, line.queue.loop
        # If bulk is waiting, it would start in the meantime. Batches side by side gain nothing
        # from waiting, because they share the machine anyway.
        if line.bulk or queue.side_by_side or not loop.usual or self._bulk_waits:
            return -math.inf
        running = self._running.interactive_rows(queue)
        others = running or loop.missing
        if not others or line.rows + others > queue.largest:
            return -math.inf
        together = queue.seconds(line.rows + others)
        saved = queue.seconds(line.rows) + queue.seconds(others) - together
        if saved < POLICY.margin / 2 * together or together <= POLICY.handover_seconds:
            return -math.inf
        return math.inf if running else loop.ended_at + min(saved, POLICY.handover_seconds)

    def _first(self, lines: list[Line], now: float) -> Line | None:
        """The line to serve next: interactive before bulk, then the one served longest ago."""
        lines.sort(key=lambda line: line.served)
        interactive = next((line for line in lines if not line.bulk), None)
        bulk = next((line for line in lines if line.bulk), None)
        if bulk is None or interactive is None:
            return interactive or bulk
        rows = min(bulk.rows, self._most_rows(bulk, now))
        return bulk if 0 < self._deficit >= bulk.queue.seconds(rows) else interactive

    def _most_rows(self, line: Line, now: float) -> int:
        """Maximum rows of the next batch; small for bulk soon after an interactive call."""
        queue, sizes = line.queue, line.queue.sizes
        if line.bulk and now - self._interactive_at <= POLICY.interactive_seconds:
            most = POLICY.bulk_seconds if queue.seconds(1) else -1.0
            sizes = tuple(size for size in sizes if queue.seconds(size) <= most) or sizes[:1]
        if queue.pads and self._running:  # rows beyond a full size can wait for free
            sizes = tuple(size for size in sizes if size <= line.rows) or sizes
        return sizes[-1]

    def _start(self, line: Line, pieces: list[Piece], now: float) -> Batch:
        for piece in pieces:
            line.take(piece.task, piece.rows)
        batch = Batch(line.queue, pieces=pieces, bulk=line.bulk)
        batch.size = line.queue.padded(batch.rows)
        cost = line.queue.seconds(batch.size)
        if batch.bulk:
            self._deficit = max(self._deficit - cost, 0.0)
        elif self._bulk_waits:
            self._deficit += cost * POLICY.bulk_share / (1 - POLICY.bulk_share)
        self._batches += 1
        line.served = self._batches
        self._running.start(batch, now)
        self._tidy(line.queue)
        return batch
