"""The machine time that a running batch is charged."""

from __future__ import annotations

import pytest

from featurewire_server.batching.batch import Batch
from featurewire_server.batching.config import BatchingConfig
from featurewire_server.batching.queue import Queue
from featurewire_server.batching.running import Running


def new_batch(*, side_by_side: bool, seconds: float | None = 2.0) -> Batch:
    queue = Queue(BatchingConfig(), side_by_side=side_by_side)
    if seconds is not None:
        for _ in range(2):  # the first one is not counted
            queue.estimate.observe(1, seconds, 0.0)
    return Batch(queue, size=1)


def test_batches_side_by_side_share_the_time_in_which_both_run() -> None:
    running = Running()
    first, second = (new_batch(side_by_side=True) for _ in range(2))
    running.start(first, 0.0)
    running.start(second, 1.0)
    assert running.left(1.0) == pytest.approx(3.0)
    running.end(first, 3.0)
    running.end(second, 4.0)
    assert (first.spent, second.spent) == (pytest.approx(2.0), pytest.approx(2.0))


def test_the_second_of_two_in_order_is_charged_from_its_start() -> None:
    running = Running()
    first, second = (new_batch(side_by_side=False) for _ in range(2))
    running.start(first, 0.0)
    running.start(second, 1.9)
    assert running.left(1.9) == pytest.approx(2.1)
    running.end(first, 2.0)
    running.end(second, 4.0)
    assert (first.spent, second.spent) == (pytest.approx(2.0), pytest.approx(2.0))


def test_late_and_unmeasured_batches_add_nothing_to_what_is_left() -> None:
    running = Running()
    running.start(new_batch(side_by_side=False), 0.0)
    running.start(new_batch(side_by_side=False, seconds=None), 0.0)
    assert running.left(5.0) == 0.0
    assert len(running) == running.count(merge=True) == 2
