"""What the policy decides, on a clock of its own: order, shares, refusals, sizes."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable
from functools import partial

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurewire_server.batching.config import BatchingConfig
from featurewire_server.batching.deadlines import needed
from featurewire_server.batching.queue import Queue, Rates
from featurewire_server.batching.schedule import BULK_SECONDS, MOST_PATIENCE, Schedule
from featurewire_server.batching.task import Batch, Task, TaskTooLarge, Terms
from featurewire_server.common.errors import ServingError

ONES = BatchingConfig(max_batch_size=1, max_enqueued_batches=10**6)
SIXTEEN = BatchingConfig(max_batch_size=16, allowed_sizes=(1, 2, 4, 8, 16), max_enqueued_batches=64)
TIMES = {1: 0.185, 2: 0.36, 4: 0.70, 8: 1.25, 16: 2.35}
"""Seconds of a float32 batch on two cores."""
CAPACITY = 16 / TIMES[16]


def new_queue(
    config: BatchingConfig = SIXTEEN,
    *,
    times: dict[int, float] | None = TIMES,
    side_by_side: bool = False,
    pads: bool = True,
) -> Queue:
    """`times`: what batches of each size have taken; None: nothing is measured."""
    rates = Rates()
    for size, seconds in (times or {}).items():
        for _ in range(2):  # the first one is not counted
            rates.observe(size, seconds)
    return Queue(config, rates=rates, splits=config.merge, side_by_side=side_by_side, pads=pads)


def new_task(
    now: float = 0.0,
    *,
    rows: int = 1,
    timeout: float | None = None,
    caller: object = None,
    bulk: bool = False,
) -> Task:
    return Task(
        {"x": np.zeros((rows, 1))},
        Terms(
            deadline=None if timeout is None else now + timeout,
            caller=caller,
            bulk=bulk,
        ),
        enqueued=now,
    )


class Machine:
    """Runs a schedule's batches as engines do that take all cores."""

    def __init__(self, schedule: Schedule, seconds: Callable[[Batch], float]) -> None:
        self.schedule = schedule
        self.now = 0.0
        self.answered: list[tuple[Task, float]] = []
        self.refused: list[tuple[Task, ServingError]] = []
        self.batches: list[Batch] = []
        self.idle = 0.0
        """Seconds without a batch."""
        self._seconds = seconds
        self._left: dict[Batch, float] = {}
        """Seconds that each batch needs by itself."""
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0

    def at(self, when: float, do: Callable[[], object]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, do))

    def add(self, queue: Queue, task: Task) -> bool:
        try:
            self.schedule.add(queue, task, self.now)
        except ServingError as error:
            self.refused.append((task, error))
            return False
        return True

    def run(self, until: float) -> None:
        while True:
            while (batch := self.schedule.next(self.now)) is not None:
                self.batches.append(batch)
                self._left[batch] = self._seconds(batch)
            first, ends_at = self._first_to_end()
            event_at = self._events[0][0] if self._events else until
            when = min(ends_at, event_at, self.schedule.wake_at)
            if when >= until:
                return
            self._compute(max(when, self.now) - self.now)
            self.now = max(when, self.now)
            if ends_at <= when:
                self._end(first)
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()

    def _first_to_end(self) -> tuple[Batch | None, float]:
        working = self._working()
        if not working:
            return None, math.inf
        batch = min(working, key=self._left.get)
        return batch, self.now + len(working) * self._left[batch]

    def _compute(self, seconds: float) -> None:
        working = self._working()
        if not working:
            self.idle += seconds
        for batch in working:
            self._left[batch] -= seconds / len(working)

    def _working(self) -> list[Batch]:
        """Those of one queue."""
        batches = list(self._left)
        return batches if batches and batches[0].queue.side_by_side else batches[:1]

    def _end(self, batch: Batch) -> None:
        del self._left[batch]
        self.schedule.finished(batch, self.now)
        for piece in batch.pieces:
            piece.task.deliver(piece.start, {}, piece.rows)
            if not piece.task._missing:
                self.answered.append((piece.task, self.now))


def by_table(batch: Batch) -> float:
    return TIMES[batch.size]


# --- order


arrivals = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(0, 2)), min_size=1, max_size=60
)


@settings(deadline=None, max_examples=200)
@given(arrivals=arrivals, bulk=st.booleans(), split=st.booleans(), threads=st.integers(1, 3))
def test_no_task_waits_for_more_than_one_batch_of_each_other_queue(
    arrivals, bulk, split, threads
) -> None:
    """Arrivals: (queue, rows, batches that end before it comes)."""
    config = BatchingConfig(
        max_batch_size=4, max_enqueued_batches=100, split=split, threads=threads
    )
    queues = [new_queue(config, times=None) for _ in range(4)]
    schedule = Schedule(threads=threads)
    running: list[Batch] = []
    others: dict[Queue, Counter] = {}  # batches of others since a queue has begun to wait
    now = 0.0

    def start() -> None:
        while (batch := schedule.next(now)) is not None:
            running.append(batch)
            assert 0 < batch.rows <= 4
            for queue, counts in others.items():
                if queue is not batch.queue:
                    counts[batch.queue] += 1
                    assert counts[batch.queue] <= 1
            del others[batch.queue]
            if batch.queue.lines[bulk]:
                others[batch.queue] = Counter()

    def end() -> None:
        if running:
            schedule.finished(running.pop(0), now)
        start()

    waiting = []
    for number, rows, ends in arrivals:
        now += 1.0
        for _ in range(ends):
            end()
        waiting.append(new_task(now, rows=rows, caller=number % 2, bulk=bulk))
        schedule.add(queues[number], waiting[-1], now)
        others.setdefault(queues[number], Counter())
        start()
    while running:
        end()
    assert not others
    assert all(not task.left for task in waiting)


@settings(deadline=None, max_examples=200)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    dead=st.sets(st.integers(0, 11)),
    split=st.booleans(),
    allowed=st.sampled_from([(), (1, 2, 4), (3, 4)]),
    bulk=st.booleans(),
    callers=st.integers(1, 3),
)
def test_every_live_row_runs_exactly_once_in_batches_of_legal_size(
    sizes, dead, split, allowed, bulk, callers
) -> None:
    config = BatchingConfig(
        max_batch_size=9,
        max_execution_batch_size=4 if split else None,
        split=split,
        allowed_sizes=allowed[:-1] + (4 if split else 9,) if allowed else (),
        max_enqueued_batches=100,
    )
    config.check()
    queue, schedule = new_queue(config, times=None), Schedule(threads=100)
    tasks = []
    for number, size in enumerate(sizes):
        tasks.append(new_task(rows=size, caller=number % callers, bulk=bulk))
        schedule.add(queue, tasks[-1], 0.0)
    alive = [task for number, task in enumerate(tasks) if number not in dead]
    for task in set(tasks) - set(alive):
        task.outputs.cancel()
    covered: dict[Task, list[int]] = {}
    while (batch := schedule.next(1.0)) is not None:
        assert 0 < batch.rows <= batch.size <= config.execution_size
        for piece in batch.pieces:
            covered.setdefault(piece.task, []).extend(range(piece.start, piece.stop))
    assert {task: sorted(rows) for task, rows in covered.items()} == {
        task: list(range(task.rows)) for task in alive
    }


def test_callers_take_turns() -> None:
    queue, schedule = new_queue(ONES, times=None), Schedule(threads=1)
    for _ in range(1000):
        schedule.add(queue, new_task(caller="crowd"), 0.0)
    schedule.add(queue, new_task(caller="one"), 0.0)
    order = []
    for _ in range(3):
        batch = schedule.next(0.0)
        order.append(batch.pieces[0].task.caller)
        schedule.finished(batch, 0.0)
    assert order.index("one") <= 1


def test_a_caller_who_fills_the_queue_gives_way_to_another() -> None:
    config = BatchingConfig(max_batch_size=1, max_enqueued_batches=4)
    queue, schedule = new_queue(config, times=None), Schedule(threads=1)
    crowd = [new_task(caller="crowd") for _ in range(4)]
    for task in crowd:
        schedule.add(queue, task, 0.0)
    with pytest.raises(ServingError, match="queue to which this task was submitted is full"):
        schedule.add(queue, new_task(caller="crowd"), 0.0)
    schedule.add(queue, new_task(caller="one"), 0.0)
    assert [task.alive(0.0) for task in crowd] == [True, True, True, False]
    with pytest.raises(ServingError) as caught:
        crowd[-1].outputs.result(0)
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


def test_a_full_queue_of_bulk_is_full_for_bulk_alone() -> None:
    config = BatchingConfig(max_batch_size=1, max_enqueued_batches=1)
    queue, schedule = new_queue(config, times=None), Schedule(threads=1)
    schedule.add(queue, new_task(bulk=True), 0.0)
    with pytest.raises(ServingError, match="is full"):
        schedule.add(queue, new_task(bulk=True), 0.0)
    schedule.add(queue, new_task(), 0.0)


def test_a_task_larger_than_a_batch_is_refused() -> None:
    with pytest.raises(TaskTooLarge):
        Schedule(threads=1).add(new_queue(), new_task(rows=17), 0.0)


# --- classes


def test_interactive_goes_first_and_bulk_has_its_share() -> None:
    queue, schedule = new_queue(), Schedule(threads=2)
    machine = Machine(schedule, by_table)

    def refill() -> None:
        while queue.lines[False].rows < 16:
            machine.add(queue, new_task(machine.now))
        while queue.lines[True].rows < 64:
            machine.add(queue, new_task(machine.now, rows=16, bulk=True))
        machine.at(machine.now + 0.05, refill)

    machine.at(0.0, refill)
    machine.run(200.0)
    spent = dict.fromkeys((False, True), 0.0)
    for batch in machine.batches:
        spent[batch.bulk] += by_table(batch)
    share = spent[True] / sum(spent.values())
    assert 0.18 <= share <= 0.25


def test_bulk_batches_are_short_while_interactive_calls_come() -> None:
    queue, schedule = new_queue(), Schedule(threads=2)
    machine = Machine(schedule, by_table)
    for _ in range(40):
        machine.add(queue, new_task(rows=16, bulk=True))
    singles = [new_task(when) for when in np.arange(20.0, 50.0, 1.7)]
    for task in singles:
        machine.at(task.enqueued, partial(machine.add, queue, task))
    machine.run(19.0)
    assert {batch.size for batch in machine.batches} == {16}
    before = len(machine.batches)
    machine.run(50.0)
    # The one in progress when the first came was begun before anybody knew.
    assert max(by_table(each) for each in machine.batches[before + 3 :]) <= BULK_SECONDS
    waits = [when - task.enqueued for task, when in machine.answered if not task.bulk]
    assert len(waits) >= len(singles) - 1
    assert sorted(waits)[len(waits) // 2] <= 1.0
    assert max(waits[2:]) <= 2.0


def test_bulk_fills_what_would_be_padding() -> None:
    queue, schedule = new_queue(), Schedule(threads=1)
    for _ in range(3):
        schedule.add(queue, new_task(), 0.0)
    schedule.add(queue, new_task(rows=16, bulk=True), 0.0)
    batch = schedule.next(0.0)
    assert [piece.task.bulk for piece in batch.pieces] == [False] * 3 + [True]
    assert batch.rows == batch.size == 4


# --- deadlines


def test_everything_is_admitted_before_anything_is_measured() -> None:
    queue, schedule = new_queue(ONES, times=None), Schedule(threads=1)
    for _ in range(100):
        schedule.add(queue, new_task(timeout=0.001), 0.0)
    assert len(queue) == 100


def test_an_idle_server_that_was_slow_tries_whether_it_still_is() -> None:
    queue, schedule = new_queue(ONES, times={1: 100.0}), Schedule(threads=1)
    machine = Machine(schedule, lambda _batch: 0.1)
    for when in np.arange(0.0, 30.0, 0.5):
        machine.at(when, lambda: machine.add(queue, new_task(machine.now, timeout=2.0)))
    machine.run(30.0)
    assert len(machine.refused) >= 10  # one at a time is tried
    assert len(machine.answered) >= 10


def test_tasks_without_a_deadline_wait_up_to_the_limit() -> None:
    config = BatchingConfig(max_batch_size=1, max_enqueued_batches=50)
    queue, schedule = new_queue(config, times={1: 10.0}), Schedule(threads=1)
    for _ in range(50):
        schedule.add(queue, new_task(), 0.0)
    with pytest.raises(ServingError, match="is full"):
        schedule.add(queue, new_task(), 0.0)


def test_a_batch_fits_the_deadlines_of_what_is_in_it() -> None:
    queue, schedule = new_queue(), Schedule(threads=1)
    for _ in range(8):
        schedule.add(queue, new_task(timeout=2.0), 0.0)
    for _ in range(8):
        schedule.add(queue, new_task(), 0.0)
    batch = schedule.next(0.0)
    assert batch.size == 8


def test_what_cannot_be_answered_any_more_is_dropped_while_it_waits() -> None:
    queue, schedule = new_queue(), Schedule(threads=1)
    schedule.add(queue, new_task(rows=16), 0.0)
    running = schedule.next(0.0)
    task = new_task(timeout=3.0)
    schedule.add(queue, task, 0.0)
    assert schedule.next(0.1) is None
    assert schedule.wake_at < 3.0
    assert schedule.next(2.9) is None  # what runs takes longer than it should
    with pytest.raises(ServingError) as caught:
        task.outputs.result(0)
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    schedule.finished(running, 3.0)
    assert schedule.next(3.0) is None


def test_interactive_tasks_do_not_count_the_bulk_that_waits() -> None:
    queue, schedule = new_queue(), Schedule(threads=1)
    for _ in range(10):
        schedule.add(queue, new_task(rows=16, bulk=True), 0.0)
    schedule.add(queue, new_task(timeout=1.0), 0.0)
    with pytest.raises(ServingError):
        schedule.add(queue, new_task(timeout=1.0, bulk=True), 0.0)


@pytest.mark.parametrize("side_by_side", [True, False])
@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("timeout", [2.0, 5.0, 30.0])
def test_a_crowd_of_ten_times_what_can_be_answered(
    timeout: float, merge: bool, side_by_side: bool
) -> None:
    random_ = random.Random(1)
    config = SIXTEEN if merge else BatchingConfig.unbatched()
    queue, schedule = new_queue(config, side_by_side=side_by_side), Schedule(threads=2, unbatched=8)
    machine = Machine(schedule, lambda batch: by_table(batch) * random_.uniform(0.97, 1.05))
    tasks = []

    def arrive() -> None:
        tasks.append(new_task(machine.now, timeout=timeout))
        machine.add(queue, tasks[-1])
        machine.at(machine.now + random_.expovariate(10 * CAPACITY), arrive)

    machine.at(0.0, arrive)
    machine.run(45.0)
    in_time = sum(when <= task.deadline for task, when in machine.answered)
    capacity = CAPACITY if merge else 1 / TIMES[1]
    assert in_time >= 0.9 * capacity * (45 - TIMES[16])
    assert in_time >= 0.98 * len(machine.answered)
    assert len(machine.refused) >= 0.8 * (len(tasks) - in_time)  # at once, not after a wait
    for _, error in machine.refused:
        assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.retry_after > 0


@pytest.mark.parametrize("side_by_side", [True, False])
def test_a_machine_that_becomes_slow_goes_on_with_large_batches(side_by_side: bool) -> None:
    """Calls that had been promised an answer are then too old for a large batch."""
    random_ = random.Random(1)
    queue, schedule = new_queue(side_by_side=side_by_side), Schedule(threads=2)
    machine = Machine(schedule, lambda batch: by_table(batch) * (1.5 if machine.now > 20 else 1.0))

    def arrive() -> None:
        machine.add(queue, new_task(machine.now, timeout=8.0))
        machine.at(machine.now + random_.expovariate(10 * CAPACITY), arrive)

    machine.at(0.0, arrive)
    machine.run(35.0)  # a few batches show how slow it is
    before = len(machine.answered)
    machine.run(65.0)
    in_time = sum(when <= task.deadline for task, when in machine.answered[before:])
    assert in_time >= 0.85 * 30 * CAPACITY / 1.5


def test_no_caller_with_a_short_time_starves_beside_those_with_a_long_one() -> None:
    random_ = random.Random(2)
    queue, schedule = new_queue(), Schedule(threads=2)
    machine = Machine(schedule, by_table)

    def arrive() -> None:
        timeout, caller = random_.choice([(3.0, "a"), (30.0, "b")])
        machine.add(queue, new_task(machine.now, timeout=timeout, caller=caller))
        machine.at(machine.now + random_.expovariate(10 * CAPACITY), arrive)

    machine.at(0.0, arrive)
    machine.run(120.0)
    answered = Counter(task.caller for task, _ in machine.answered)
    assert answered["a"] >= 0.2 * answered["b"]


def test_a_second_queue_is_answered_within_two_batches_of_a_saturated_one() -> None:
    queue, second, schedule = new_queue(), new_queue(), Schedule(threads=2)
    machine = Machine(schedule, by_table)

    def refill() -> None:
        while queue.lines[False].rows < 200:
            machine.add(queue, new_task(machine.now))
        machine.at(machine.now + 0.1, refill)

    machine.at(0.0, refill)
    for when in np.arange(5.0, 100.0, 3.1):
        machine.at(when, lambda: machine.add(second, new_task(machine.now, caller="b")))
    machine.run(110.0)
    waits = [when - task.enqueued for task, when in machine.answered if task.caller]
    assert len(waits) == 31
    assert max(waits) <= 2 * TIMES[16]


# --- callers who come back


def call_again(
    machine: Machine, queue: Queue, *, start: float, after: float, until: float = math.inf
) -> None:
    """A caller whose next task comes so many seconds after each answer."""

    def call() -> None:
        task = new_task(machine.now)
        task.outputs.add_done_callback(lambda _: again())
        machine.add(queue, task)

    def again() -> None:
        if machine.now < until:
            machine.at(machine.now + after, call)

    machine.at(start, call)


@pytest.mark.parametrize(
    ("callers", "after", "whole"),
    [
        (4, 0.003, True),
        (4, 0.1, False),  # they are late
        (16, 0.003, False),  # as many are no faster together
    ],
)
def test_a_small_batch_waits_for_callers_who_come_back_at_once(callers, after, whole) -> None:
    queue, machine = new_queue(), Machine(Schedule(threads=2), by_table)
    for number in range(callers):
        call_again(machine, queue, start=0.1 * number, after=after)
    machine.run(60.0)
    assert all((batch.rows == callers) == whole for batch in machine.batches[-20:])
    assert (machine.idle > MOST_PATIENCE) == whole


def test_one_who_leaves_is_waited_for_once() -> None:
    queue = new_queue(pads=False)
    machine = Machine(Schedule(threads=2), lambda batch: 0.01 + 0.17 * batch.rows)
    for number, until in enumerate((30.0, math.inf, math.inf, math.inf)):
        call_again(machine, queue, start=0.2 * number, after=0.003, until=until)
    machine.run(60.0)
    assert {batch.rows for batch in machine.batches[-20:]} == {3}
    assert machine.idle < 0.0031 * len(machine.batches) + MOST_PATIENCE


def queue_of_a_loop(times: dict[int, float] = TIMES) -> Queue:
    """One whose callers came back after each of ten batches."""
    queue = new_queue(times=times)
    for second in range(10):
        queue.returns.ended(1, second)
        queue.returns.came(1, second + 0.001)
    return queue


def test_a_batch_that_is_soon_done_waits_for_nobody() -> None:
    queue, schedule = queue_of_a_loop({1: 0.006, 2: 0.01}), Schedule(threads=2)
    schedule.add(queue, new_task(20.0), 20.0)
    running = schedule.next(20.0)
    schedule.add(queue, new_task(20.001), 20.001)
    assert schedule.next(20.001) is not None
    assert running.rows == 1


def test_nobody_is_late_for_waiting_for_callers_who_come_back() -> None:
    queue, schedule = queue_of_a_loop(), Schedule(threads=2)
    schedule.add(queue, new_task(20.0), 20.0)
    running = schedule.next(20.0)
    end = 20.0 + TIMES[1]
    task = new_task(20.1, timeout=TIMES[1] - 0.1 + needed(queue, 1) + MOST_PATIENCE / 2)
    schedule.add(queue, task, 20.1)
    schedule.finished(running, end)
    assert schedule.next(end) is None
    assert end < schedule.wake_at < end + MOST_PATIENCE / 2
    assert schedule.next(schedule.wake_at).pieces[0].task is task


def test_callers_who_come_back_do_not_wait_for_bulk() -> None:
    """It comes in small batches, too, where a processor is slow."""
    times = {size: 1.6 * seconds for size, seconds in TIMES.items()}
    queue, schedule = new_queue(times=times), Schedule(threads=2)
    machine = Machine(schedule, lambda batch: times[batch.size])
    for number in range(2):
        call_again(machine, queue, start=0.1 * number, after=0.003)
    machine.at(20.0, lambda: [machine.add(queue, new_task(20.0, bulk=True)) for _ in range(400)])
    machine.run(80.0)
    assert {batch.rows for batch in machine.batches if batch.bulk} == {4}
    answered = [at for task, at in machine.answered if not task.bulk and at > 20.0]
    assert max(np.diff([20.0, *answered, 80.0])) < times[4] + 2 * times[2]


def test_no_end_of_bulk_is_waited_for_as_if_its_callers_came_back() -> None:
    queue, schedule = queue_of_a_loop(), Schedule(threads=2)
    schedule.add(queue, new_task(20.0, bulk=True), 20.0)
    assert schedule.next(20.0).bulk
    schedule.add(queue, new_task(20.01), 20.01)
    assert schedule.next(20.01) is None
    assert schedule.wake_at < 20.0 + TIMES[1]
    assert not schedule.next(schedule.wake_at).bulk


def test_nobody_waits_for_callers_to_come_back_while_bulk_would_start_first() -> None:
    queue, schedule = queue_of_a_loop(), Schedule(threads=2)
    schedule.add(queue, new_task(20.0), 20.0)
    schedule.next(20.0)
    waits = new_task(20.01)
    schedule.add(queue, waits, 20.01)
    schedule.add(queue, new_task(20.02, bulk=True), 20.02)
    assert schedule.next(20.02) is None
    assert schedule.next(schedule.wake_at).pieces[0].task is waits


def test_other_queues_do_not_wait_for_callers_who_come_back() -> None:
    queue, other, schedule = queue_of_a_loop(), new_queue(), Schedule(threads=2)
    schedule.add(queue, new_task(20.0), 20.0)
    running = schedule.next(20.0)
    schedule.add(queue, new_task(20.1), 20.1)
    nearly = 20.0 + TIMES[1] - 0.001
    assert schedule.next(nearly) is None
    schedule.add(other, new_task(nearly), nearly)
    beside = schedule.next(nearly)
    assert beside.queue is other
    end = 20.0 + TIMES[1]
    schedule.finished(running, end)
    schedule.finished(beside, end)
    schedule.add(other, new_task(end), end)
    beside = schedule.next(end)
    assert beside.queue is other
    schedule.finished(beside, end)
    assert schedule.next(end) is None
    assert schedule.wake_at == pytest.approx(end + MOST_PATIENCE)
    assert schedule.next(schedule.wake_at).queue is queue


# --- measuring


def test_one_slow_batch_changes_nothing_and_a_slow_machine_is_noticed() -> None:
    rates = Rates()
    for _ in range(10):
        rates.observe(16, 2.0)
        rates.observe(4, 0.6)
    rates.observe(16, 20.0)
    assert rates.seconds(16) == pytest.approx(2.0, rel=0.3)
    for _ in range(4):
        rates.observe(16, 4.0)
    assert rates.seconds(16) >= 3.5
    assert rates.seconds(4) >= 0.8
    for _ in range(4):
        rates.observe(4, 0.6)
    assert rates.seconds(16) <= 2.6


def test_the_first_batch_of_a_size_is_not_counted() -> None:
    rates = Rates()
    rates.observe(4, 30.0)
    assert rates.seconds(4) is None
    rates.observe(4, 1.0)
    assert rates.seconds(4) == 1.0
    assert rates.seconds(8) == 2.0
    assert rates.seconds(2) == 0.5
