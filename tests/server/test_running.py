"""What a batch is charged with while others run."""

from __future__ import annotations

import pytest

from featurewire_server.batching.config import BatchingConfig
from featurewire_server.batching.queue import Queue, Rates
from featurewire_server.batching.schedule import Running
from featurewire_server.batching.task import Batch


def new_batch(*, side_by_side: bool, seconds: float | None = 2.0) -> Batch:
    rates = Rates()
    if seconds is not None:
        for _ in range(2):  # the first one is not counted
            rates.observe(1, seconds)
    return Batch(Queue(BatchingConfig(), rates=rates, side_by_side=side_by_side), size=1)


def test_batches_side_by_side_share_the_time_in_which_both_run() -> None:
    running = Running()
    first, second = (new_batch(side_by_side=True) for _ in range(2))
    running.start(first, 0.0)
    running.start(second, 1.0)
    assert running.left(1.0) == pytest.approx(3.0)
    running.end(first, 3.0)
    running.end(second, 4.0)
    assert (first.spent, second.spent) == (pytest.approx(2.0), pytest.approx(2.0))


def test_of_batches_one_after_the_other_the_second_is_charged_from_the_end_of_the_first() -> None:
    running = Running()
    first, second = (new_batch(side_by_side=False) for _ in range(2))
    running.start(first, 0.0)
    running.start(second, 1.9)
    assert running.left(1.9) == pytest.approx(2.1)
    running.end(first, 2.0)
    running.end(second, 4.0)
    assert (first.spent, second.spent) == (pytest.approx(2.0), pytest.approx(2.0))


def test_a_late_batch_and_one_of_unknown_time_add_nothing_to_what_is_left() -> None:
    running = Running()
    running.start(new_batch(side_by_side=False), 0.0)
    running.start(new_batch(side_by_side=False, seconds=None), 0.0)
    assert running.left(5.0) == 0.0
    assert len(running) == running.count(merge=True) == 2


def test_a_size_that_was_never_measured_takes_what_measured_sizes_take() -> None:
    rates = Rates()
    for size, seconds in ((1, 1.0), (8, 6.0)):
        for _ in range(2):
            rates.observe(size, seconds)
    assert rates.seconds(9) == pytest.approx(7.0)
    assert rates.seconds(17) == pytest.approx(13.0)
    assert rates.seconds(4) == pytest.approx(4.0)
