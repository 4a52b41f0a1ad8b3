"""The decisions of the policy on a virtual clock: order, shares, refusals, sizes."""

from __future__ import annotations

import math
import random
from collections import Counter
from functools import partial

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurewire_server.batching.batch import Batch
from featurewire_server.batching.config import BatchingConfig
from featurewire_server.batching.policy import POLICY
from featurewire_server.batching.queue import Queue
from featurewire_server.batching.schedule import Schedule
from featurewire_server.batching.task import Task, TaskTooLarge
from featurewire_server.common.errors import ServingError
from tests.server.simulated import (
    CAPACITY,
    ONES,
    SIXTEEN,
    TIMES,
    Machine,
    by_table,
    new_queue,
    new_task,
)

# --- order


arrivals = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(0, 2)), min_size=1, max_size=60
)


@settings(deadline=None, max_examples=200)
@given(arrivals=arrivals, bulk=st.booleans(), split=st.booleans(), threads=st.integers(1, 3))
def test_a_task_waits_for_one_batch_of_each_other_queue(arrivals, bulk, split, threads) -> None:
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
    while running or schedule.waiting:
        now = now if schedule.wake_at == math.inf else schedule.wake_at
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
def test_every_live_row_runs_once_in_batches_of_legal_size(
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
    assert max(by_table(each) for each in machine.batches[before + 3 :]) <= POLICY.bulk_seconds
    waits = [when - task.enqueued for task, when in machine.answered if not task.bulk]
    assert len(waits) >= len(singles) - 1
    assert sorted(waits)[len(waits) // 2] <= 1.0
    assert max(waits[2:]) <= 2.0


# --- deadlines


def test_everything_is_admitted_before_anything_is_measured() -> None:
    queue, schedule = new_queue(ONES, times=None), Schedule(threads=1)
    for _ in range(100):
        schedule.add(queue, new_task(timeout=0.001), 0.0)
    assert len(queue) == 100


def test_an_idle_server_admits_whatever_it_has_measured() -> None:
    queue, schedule = new_queue(ONES, times={1: 100.0}), Schedule(threads=1)
    machine = Machine(schedule, lambda _batch: 0.1)
    for when in np.arange(0.0, 30.0, 0.5):
        machine.at(when, lambda: machine.add(queue, new_task(machine.now, timeout=2.0)))
    machine.run(30.0)
    assert not machine.refused
    assert len(machine.answered) == 60


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


def test_a_task_is_dropped_when_its_deadline_has_passed() -> None:
    queue, schedule = new_queue(), Schedule(threads=1)
    schedule.add(queue, new_task(rows=16), 0.0)
    running = schedule.next(0.0)
    late, nearly_late, other = new_task(timeout=3.1), new_task(timeout=3.3), new_task()
    for task in (late, nearly_late, other):
        schedule.add(queue, task, 0.0)
    schedule.finished(running, 3.2)  # it took longer than it should
    assert [piece.task for piece in schedule.next(3.2).pieces] == [nearly_late, other]
    assert not schedule.waiting


def test_a_refusal_says_what_it_needs_and_what_it_had() -> None:
    queue, schedule = new_queue(), Schedule(threads=1)
    schedule.add(queue, new_task(rows=16), 0.0)
    schedule.next(0.0)
    with pytest.raises(ServingError, match=r"needs about 3\.0 s .* had 2\.0 s left") as caught:
        schedule.add(queue, new_task(timeout=2.0), 0.0)
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.reason == "time"


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


def test_an_admitted_call_is_rarely_overtaken_until_it_is_late() -> None:
    """Calls of callers with fewer waiting tasks run first."""
    random_ = random.Random(1)
    queue, schedule = new_queue(BatchingConfig.unbatched()), Schedule(threads=0, unbatched=1)
    machine = Machine(schedule, by_table)
    tasks = []

    def arrive() -> None:
        task = new_task(machine.now, timeout=2.0, caller=random_.randrange(4))
        if machine.add(queue, task):
            tasks.append(task)
        machine.at(machine.now + random_.expovariate(10 / TIMES[1]), arrive)

    machine.at(0.0, arrive)
    machine.run(60.0)
    in_time = sum(when <= task.deadline for task, when in machine.answered)
    assert in_time >= 0.95 * 60.0 / TIMES[1]
    admitted = sum(task.deadline <= 60.0 for task in tasks)
    assert in_time >= 0.97 * admitted


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


def test_short_timeouts_do_not_starve_beside_long_ones() -> None:
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


def test_a_second_queue_waits_for_one_batch_of_a_saturated_one() -> None:
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


# --- closed loops

SUBLINEAR = {1: 0.185, 2: 0.2, 4: 0.25, 8: 0.4, 16: 0.7}
FAST = {1: 0.0137, 2: 0.0208, 4: 0.0345, 8: 0.061, 16: 0.1185}
"""Seconds of a batch in 8 bits on two cores."""


def by_fast_table(batch: Batch) -> float:
    return FAST[batch.size]


def call_again(
    machine: Machine, queue: Queue, *, start: float, after: float, until: float = math.inf
) -> None:
    """Add a caller that sends its next task `after` seconds after each answer."""

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
def test_the_callers_of_a_closed_loop_share_a_batch(callers, after, whole) -> None:
    queue, machine = new_queue(times=FAST), Machine(Schedule(threads=2), by_fast_table)
    for number in range(callers):
        call_again(machine, queue, start=0.01 * number, after=after)
    machine.run(20.0)
    assert all((batch.rows == callers) == whole for batch in machine.batches[-20:])


def test_one_who_leaves_a_closed_loop_is_waited_for_once() -> None:
    queue = new_queue(pads=False, times=FAST)
    machine = Machine(Schedule(threads=2), lambda batch: 0.01 + 0.006 * batch.rows)
    for number, until in enumerate((5.0, math.inf, math.inf, math.inf)):
        call_again(machine, queue, start=0.02 * number, after=0.003, until=until)
    machine.run(10.0)
    assert {batch.rows for batch in machine.batches[-20:]} == {3}
    assert machine.idle < 0.0031 * len(machine.batches) + 2 * POLICY.handover_seconds


def queue_of_a_loop(times: dict[int, float] = SUBLINEAR) -> Queue:
    """One whose callers came back after each of two batches."""
    queue = new_queue(times=times)
    for second in (1, 2, 3):
        queue.loop.ended(1, second)
        queue.loop.came(1, second + 0.001)
    return queue


def test_a_batch_that_is_soon_done_waits_for_nobody() -> None:
    queue, schedule = queue_of_a_loop({1: 0.006, 2: 0.007}), Schedule(threads=2)
    schedule.add(queue, new_task(20.0), 20.0)
    running = schedule.next(20.0)
    schedule.add(queue, new_task(20.001), 20.001)
    assert schedule.next(20.001) is not None
    assert running.rows == 1


def test_nobody_is_late_for_waiting_for_a_closed_loop() -> None:
    queue, schedule = queue_of_a_loop(), Schedule(threads=2)
    schedule.add(queue, new_task(20.0), 20.0)
    running = schedule.next(20.0)
    end = 20.0 + SUBLINEAR[1]
    patience = POLICY.handover_seconds / 2
    task = new_task(20.1, timeout=end - 20.1 + queue.needed(1) + patience)
    queue.lines[False].add(task)
    schedule._queues[queue] = None
    schedule.finished(running, end)
    assert schedule.next(end) is None
    assert end < schedule.wake_at < end + 1.01 * patience
    assert schedule.next(schedule.wake_at).pieces[0].task is task


def test_callers_who_come_back_do_not_wait_for_bulk() -> None:
    """On a slow processor, bulk also runs in small batches."""
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


def test_the_end_of_bulk_is_not_waited_for_as_a_closed_loop() -> None:
    queue, schedule = queue_of_a_loop(), Schedule(threads=2)
    schedule.add(queue, new_task(20.0, bulk=True), 20.0)
    assert schedule.next(20.0).bulk
    schedule.add(queue, new_task(20.01), 20.01)
    assert schedule.next(20.01) is None
    assert schedule.wake_at < 20.0 + TIMES[1]
    assert not schedule.next(schedule.wake_at).bulk


def test_no_batch_waits_for_a_closed_loop_while_bulk_waits() -> None:
    queue, schedule = queue_of_a_loop(), Schedule(threads=2)
    schedule.add(queue, new_task(20.0), 20.0)
    schedule.next(20.0)
    waits = new_task(20.01)
    schedule.add(queue, waits, 20.01)
    schedule.add(queue, new_task(20.02, bulk=True), 20.02)
    assert schedule.next(20.02) is None
    assert schedule.next(schedule.wake_at).pieces[0].task is waits


def test_other_queues_do_not_wait_for_callers_who_come_back() -> None:
    queue, other, schedule = queue_of_a_loop(), new_queue(times=SUBLINEAR), Schedule(threads=2)
    schedule.add(queue, new_task(20.0), 20.0)
    running = schedule.next(20.0)
    schedule.add(queue, new_task(20.1), 20.1)
    nearly = 20.0 + SUBLINEAR[1] - 0.001
    assert schedule.next(nearly) is None
    schedule.add(other, new_task(nearly), nearly)
    beside = schedule.next(nearly)
    assert beside.queue is other
    end = 20.0 + SUBLINEAR[1]
    schedule.finished(running, end)
    schedule.finished(beside, end)
    schedule.add(other, new_task(end), end)
    beside = schedule.next(end)
    assert beside.queue is other
    schedule.finished(beside, end)
    assert schedule.next(end) is None
    assert schedule.wake_at == pytest.approx(end + POLICY.handover_seconds)
    assert schedule.next(schedule.wake_at).queue is queue


# --- what once shut a healthy server


def test_a_change_of_batch_size_after_long_traffic_refuses_nobody() -> None:
    random_ = random.Random(1)
    queue, schedule = new_queue(BatchingConfig.unbatched(), times=None), Schedule(threads=0)
    machine = Machine(schedule, lambda batch: 0.3 * batch.rows * random_.lognormvariate(0, 0.3))

    def call(rows: int, times: int) -> None:
        for _ in range(times):
            machine.add(queue, new_task(machine.now, rows=rows, timeout=30.0))
            machine.run(machine.now + 0.2 * rows)
            machine.add(queue, new_task(machine.now, timeout=30.0))  # it is not idle
            machine.run(machine.now + 0.5 * rows + 0.4)

    for rows, times in ((2, 3), (1, 3), (1, 2000), (2, 20), (1, 20)):
        call(rows, times)
    assert not machine.refused
    assert len(machine.answered) == 2 * 2046


def test_one_batch_that_was_held_up_shuts_nobody_out() -> None:
    queue, schedule = new_queue(times={1: 10.0, 2: 0.002, 4: 0.002}), Schedule(threads=2)
    machine = Machine(schedule, lambda _batch: 0.002)
    for when in np.arange(0.0, 120.0, 0.05):
        machine.at(when, lambda: machine.add(queue, new_task(machine.now, timeout=5.0)))
    machine.run(121.0)
    assert not machine.refused
    assert len(machine.answered) == 2400
