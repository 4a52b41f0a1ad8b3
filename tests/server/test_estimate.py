"""How long a batch is expected to take, by what a few of each size took."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurewire_server.batching.estimate import LatencyEstimate

ALWAYS = -math.inf


def measured(times: dict[int, float]) -> LatencyEstimate:
    estimate = LatencyEstimate()
    for now, (size, seconds) in enumerate(times.items()):
        for _ in range(2):  # the first one is not counted
            estimate.observe(size, seconds, now)
    return estimate


def test_the_first_batch_of_a_size_is_not_counted() -> None:
    estimate = LatencyEstimate()
    estimate.observe(4, 30.0, 0.0)
    assert estimate.expected(4) == 0.0
    estimate.observe(4, 1.0, 31.0)
    assert estimate.expected(4) == 1.0


def test_other_sizes_are_bounded() -> None:
    estimate = measured({2: 1.0, 8: 2.5})
    expected = [estimate.expected(rows) for rows in (1, 2, 4, 8, 16)]
    assert expected == pytest.approx([(0.5 + 1) / 2, 1.0, (1.25 + 2) / 2, 2.5, (2.5 + 5) / 2])
    least = [estimate.least(rows, ALWAYS) for rows in (1, 2, 4, 8, 16)]
    assert least == pytest.approx([0.5, 1.0, 1.25, 2.5, 2.5])


def test_a_batch_that_was_held_up_changes_nothing() -> None:
    estimate = measured({4: 0.6})
    for seconds in (0.6, 0.6, 60.0):
        estimate.observe(4, seconds, 1.0)
    assert estimate.expected(4) == 0.6


def test_two_batches_tell_that_the_machine_has_changed() -> None:
    estimate = measured({4: 0.6, 16: 2.0})
    for _ in range(5):
        estimate.observe(4, 6.0, 10.0)
        estimate.observe(16, 20.0, 10.0)
    assert estimate.expected(16) == 20.0
    for _ in range(2):
        estimate.observe(4, 0.6, 10.0)
    assert estimate.expected(4) == 0.6
    assert estimate.expected(16) <= 2.4  # no more than in proportion


def test_a_long_run_of_one_size_moves_no_other() -> None:
    random_ = random.Random(1)
    estimate = measured({1: 0.3, 2: 0.5})
    for batch in range(100_000):
        estimate.observe(1, 0.3 * random_.lognormvariate(0.0, 0.3), batch)
    assert estimate.expected(1) == pytest.approx(0.3, rel=0.5)
    assert estimate.expected(2) == pytest.approx(0.5, rel=0.5)


def test_the_size_measured_last_is_right() -> None:
    held_up = measured({1: 10.0, 2: 0.002, 4: 0.002})
    assert held_up.expected(1) <= 0.002
    slower = measured({16: 0.2, 4: 0.7})
    assert slower.expected(16) >= 0.7


def test_batches_that_ended_too_long_ago_refuse_nobody() -> None:
    estimate = measured({8: 10.0})
    estimate.observe(1, 0.1, 5.0)
    estimate.observe(1, 0.1, 6.0)
    assert estimate.least(1, since=5.0) == 0.1
    assert estimate.least(8, since=5.0) == 0.1
    assert estimate.expected(8) > 0.1


times = st.floats(1e-4, 60.0)
batches = st.lists(st.tuples(st.integers(1, 3000), times), max_size=60)


@settings(deadline=None, max_examples=200)
@given(batches=batches)
def test_more_rows_never_take_less_nor_more_than_in_proportion(batches) -> None:
    estimate = LatencyEstimate()
    for now, (rows, seconds) in enumerate(batches):
        estimate.observe(rows, seconds, now)
    sizes = sorted({1, 2, 3, 7, 100, 2999, *(rows for rows, _ in batches)})
    found = [estimate.expected(rows) for rows in sizes]
    for (small, low), (large, high) in zip(
        zip(sizes, found, strict=True), list(zip(sizes, found, strict=True))[1:], strict=False
    ):
        assert low <= high * (1 + 1e-9)
        assert high <= low * large / small * (1 + 1e-9)
    counted = [seconds for _, seconds in batches]
    assert all(estimate.least(rows, ALWAYS) <= max(counted, default=0.0) for rows in sizes)
