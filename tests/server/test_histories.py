"""Invariants of the schedule over many random and hostile histories, on a virtual clock.

A history is hostile first: batches take up to a third more or less than usual, are held up for 0.1
to 60 s, or the machine becomes ten times slower or faster; the clock jumps. Then it is calm.

`FEATUREWIRE_HISTORIES=1000000` sets how many histories the slow test plays, and
`FEATUREWIRE_FIRST_SEED` where it begins.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import random

import grpc
import pytest

from featurewire_server.batching.batch import Batch
from featurewire_server.batching.config import BatchingConfig
from featurewire_server.batching.queue import Queue
from featurewire_server.batching.schedule import Schedule
from featurewire_server.batching.task import Task, Terms
from featurewire_server.common.errors import ServingError
from tests.server.simulated import ONES, SIXTEEN, Machine

CONFIGS = [
    ONES,
    dataclasses.replace(SIXTEEN, max_enqueued_batches=10**6),
    BatchingConfig.unbatched(),
    BatchingConfig(
        max_batch_size=64, max_execution_batch_size=8, split=True, max_enqueued_batches=10**6
    ),
    BatchingConfig(max_batch_size=32, timeout=0.05, max_enqueued_batches=10**6),
]
SOME_ROWS = (1, 2, 3, 5, 8, 13, 32)
NOISE = 0.3
SETTLES_SECONDS, SETTLES_BATCHES = 2.0, 3
"""After these seconds and normal batches, no call is refused because of older batches."""


class History:
    """One history, from its seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        pick = self.random
        self.config = pick.choice(CONFIGS)
        side_by_side, pads = pick.random() < 0.5, pick.random() < 0.5
        self.queues = [
            Queue(self.config, splits=self.config.merge, side_by_side=side_by_side, pads=pads)
            for _ in range(pick.choice((1, 1, 2, 3)))
        ]
        self.times = {
            queue: (10 ** pick.uniform(-4, 0), 10 ** pick.uniform(-4, 0)) for queue in self.queues
        }
        """Seconds of a batch, and of each row."""
        self.speed = 1.0
        self.held_up = 0.001
        """Fraction of the batches."""
        self.abnormal_until = 0.0
        """When the last batch ended, or will end, that did not take its normal time."""
        self.machine = Checked(
            Schedule(threads=pick.randint(1, 3), unbatched=pick.randint(1, 3)), self.seconds
        )
        self.callers = pick.randint(1, 4)
        largest = min(self.config.max_batch_size, 32)
        self.rows = [pick.randint(1, largest) for _ in range(3)]

    def normal(self, queue: Queue, rows: int) -> float:
        fixed, per_row = self.times[queue]
        return fixed + per_row * rows

    def alone(self, queue: Queue, rows: int, *, bulk: bool = False) -> float:
        """Seconds for a task that shares no batch; bulk may run row by row."""
        size = 1 if bulk else min(rows, queue.largest)
        return -(-rows // size) * self.normal(queue, queue.padded(size))

    def seconds(self, batch: Batch) -> float:
        seconds = self.normal(batch.queue, batch.size) * self.random.uniform(1 - NOISE, 1 + NOISE)
        if self.random.random() < self.held_up:
            seconds += self.random.uniform(0.1, 60.0)
            self.machine.abnormal.add(batch)
        elif self.speed != 1.0:
            self.machine.abnormal.add(batch)
        return seconds * self.speed

    def call(
        self, queue: Queue, *, timeout: float | None, rows: int, bulk: bool = False, caller: object
    ) -> Task:
        terms = Terms(
            deadline=None if timeout is None else self.machine.now + timeout,
            caller=caller,
            bulk=bulk,
        )
        task = Task({}, terms, rows=rows, enqueued=self.machine.now)
        self.machine.add(queue, task)
        return task

    def be_hostile(self) -> None:
        pick, machine = self.random, self.machine
        self.held_up = pick.choice((0.001, 0.001, 0.05, 0.5))
        for _ in range(pick.randint(1, 8)):
            kind = pick.random()
            if kind < 0.05:
                self.speed = pick.choice((0.1, 1.0, 1.0, 10.0))
            elif kind < 0.07:
                machine.jump(10 ** pick.uniform(-1, 2))
            for _ in range(pick.choice((1, 1, 1, 2, 8))):
                timeout = pick.choice((None, 10 ** pick.uniform(-3, 1.5)))
                rows = pick.choice((1, 1, *self.rows))
                queue, caller = pick.choice(self.queues), pick.randrange(self.callers)
                bulk = pick.random() < 0.2
                self.call(queue, timeout=timeout, rows=rows, bulk=bulk, caller=caller)
            machine.run(machine.now + self.normal(self.queues[0], 1) * pick.expovariate(0.7))

    def calm_down(self) -> None:
        """Wait until no batch runs that does not take its normal time."""
        self.speed, self.held_up = 1.0, 0.0
        machine = self.machine
        while machine.abnormal & machine.running:
            machine.run(machine.now + 1.0)

    def expect_answers(self) -> None:
        """Call with twice the time that is needed; soon all calls are answered."""
        machine, pick = self.machine, self.random
        longest = (1 + NOISE) * max(self.alone(queue, max(self.rows)) for queue in self.queues)
        needed_batches = SETTLES_BATCHES * len(self.queues)
        settles = max(SETTLES_SECONDS, needed_batches * longest)
        settled_at = machine.now + settles
        batches = len(machine.batches)
        expected: list[Task] = []
        while len(expected) < 3:
            queue, rows = pick.choice(self.queues), pick.choice((1, *self.rows))
            turns = machine.waiting * longest * (len(self.queues) - 1)  # tasks that arrive later
            needs = (1 + NOISE) * machine.work() + turns + longest
            # Each call has its own caller, so that no later call goes first.
            task = self.call(
                queue, timeout=2 * needs + self.config.timeout, rows=rows, caller=object()
            )
            measured = len(machine.batches) - machine.schedule.running - batches
            if machine.now >= settled_at and measured >= needed_batches:
                expected.append(task)
            machine.run(machine.now + max(pick.uniform(0.2, 1.2) * longest, settles / 6))
        machine.run(machine.now + 3600.0)
        answered = dict(machine.answered)
        for task in expected:
            assert answered.get(task, math.inf) <= task.deadline, machine.why(task)
        assert not machine.schedule.waiting
        assert not machine.schedule.running


class Checked(Machine):
    """A machine that checks each decision of its schedule."""

    def __init__(self, schedule: Schedule, seconds) -> None:
        super().__init__(schedule, seconds)
        self.history: History
        self.abnormal: set[Batch] = set()

    @property
    def running(self) -> set[Batch]:
        return {*self._left}

    def jump(self, seconds: float) -> None:
        """Time passes in which nothing happens, as when the machine sleeps."""
        self.abnormal |= self.running
        self.now += seconds

    def work(self) -> float:
        """Seconds until all that runs and waits is done, one task after another."""
        waiting = [
            self.history.alone(queue, task.left, bulk=task.bulk)
            for queue in self.schedule._queues
            for line in queue.lines.values()
            for task in line.tasks
        ]
        running = (self.history.normal(batch.queue, batch.size) for batch in self.running)
        return sum(running) + sum(waiting)

    @property
    def waiting(self) -> int:
        """Tasks."""
        lines = (line for queue in self.schedule._queues for line in queue.lines.values())
        return sum(len(line.tasks) for line in lines)

    def add(self, queue: Queue, task: Task) -> bool:
        idle = not self.schedule.running and not self.schedule.waiting
        task.outputs.add_done_callback(lambda _: self._ended(queue, task))
        admitted = super().add(queue, task)
        if idle and not admitted:
            error = self.refused[-1][1]
            assert error.code is not grpc.StatusCode.RESOURCE_EXHAUSTED, "an idle server refuses"
        return admitted

    def _ended(self, queue: Queue, task: Task) -> None:
        error = task.outputs.exception()
        dropped = isinstance(error, ServingError) and error.reason == "time"
        assert not dropped, "an admitted call is dropped before its deadline"

    def started(self, batch: Batch) -> None:
        queue = batch.queue
        expected = queue.seconds(batch.size)
        start = self.now + self.schedule._running.left(self.now) - expected
        for piece in batch.pieces:
            deadline = piece.task.deadline
            assert piece.task.alive(self.now), "computed for nobody"
            if deadline is not None and start + queue.needed(piece.rows) <= deadline:
                assert start + queue.needed(batch.rows) <= deadline + 1e-6, "too large a batch"
        assert 0 < batch.rows <= max(queue.largest, batch.pieces[0].rows)

    def ended(self, batch: Batch) -> None:
        if len(self.batches) % 8:  # it takes longer than the batch
            return
        estimate = batch.queue.estimate
        sizes = [(estimate.expected(rows), estimate.least(rows, -math.inf)) for rows in SOME_ROWS]
        for (low, least_low), (high, least_high) in itertools.pairwise(sizes):
            assert low <= high * (1 + 1e-9), "more rows take less time"
            assert least_low <= least_high * (1 + 1e-9), "more rows take less time"

    def why(self, task: Task) -> str:
        errors = [error.message for each, error in self.refused if each is task]
        return f"{task.rows} rows at {task.enqueued}: {errors or task.outputs}"


def play(first_seed: int, histories: int) -> None:
    for seed in range(first_seed, first_seed + histories):
        history = History(seed)
        history.machine.history = history
        try:
            history.be_hostile()
            history.calm_down()
            history.expect_answers()
        except AssertionError as error:
            raise AssertionError(f"history of seed {seed}: {error}") from error


def test_the_schedule_keeps_its_promises_in_any_history() -> None:
    play(0, 300)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_the_schedule_keeps_its_promises_in_many_histories() -> None:
    first = int(os.environ.get("FEATUREWIRE_FIRST_SEED", "1000"))
    play(first, int(os.environ.get("FEATUREWIRE_HISTORIES", "20000")))
