"""The error rates and intervals of `check` are as stated."""

from __future__ import annotations

import numpy as np
import pytest

from featurewire_rollout.check import Pairs, Side, Thresholds, judge, to_json
from featurewire_rollout.check.bootstrap import Bootstrap, unseen
from featurewire_rollout.check.measures import measure
from featurewire_rollout.check.neighbours import found, overlap, rank_correlation, similarities
from featurewire_rollout.check.verdict import decide

RATE = Thresholds().error_rate
COMPARISONS = 200


def vectors(chance, count: int, dimension: int = 48):
    """Rows in loose clusters, like vectors of photos."""
    centres = chance.standard_normal((8, dimension))
    return centres[chance.integers(8, size=count)] + 0.7 * chance.standard_normal(
        (count, dimension)
    )


def pairs(stable, canary, chance, *, crops=True, slower=1.0, errors=(), manifests=(None, None)):
    """Crops of both versions are near their images; latencies vary, with a long tail."""

    def side(name, version, rows, factor, manifest):
        noise = np.random.default_rng(5).standard_normal(rows.shape)
        times = 0.1 * np.exp(0.2 * chance.standard_normal(len(rows)))
        times[chance.random(len(rows)) < 0.03] *= 6
        return Side(
            name=name,
            version=version,
            vectors=rows,
            latencies=times * factor,
            crops=rows + 0.3 * noise if crops else None,
            errors=dict.fromkeys(errors, "corrupt") if version == 2 else {},
            manifest=manifest,
        )

    return Pairs(
        model="m",
        names=tuple(f"{row}.jpg" for row in range(len(stable))),
        stable=side("stable", 1, stable, 1.0, manifests[0]),
        canary=side("canary", 2, canary, slower, manifests[1]),
    )


def outcome(made, seed) -> str:
    limits = Thresholds()
    measures, _ = measure(made, limits, seed=seed)
    count = int(made.usable.sum())
    return decide(measures, limits, images=count, same_dimension=True).outcome


def jittered(rows, chance, scale=3e-3):
    """Round a vector like bfloat16, to about three digits."""
    return rows * (1 + scale * chance.standard_normal(rows.shape))


@pytest.mark.slow
@pytest.mark.parametrize("count", [20, 100])
def test_a_version_compared_with_itself_rarely_fails(count):
    outcomes = []
    for number in range(COMPARISONS):
        chance = np.random.default_rng(number)
        rows = vectors(chance, count)
        made = pairs(jittered(rows, chance), jittered(rows, chance), chance)
        outcomes.append(outcome(made, number))
    assert outcomes.count("fail") <= RATE * COMPARISONS
    if count == 100:
        assert outcomes.count("pass") >= 0.9 * COMPARISONS


@pytest.mark.slow
@pytest.mark.parametrize("count", [10, 60])
def test_a_version_exactly_at_a_limit_rarely_fails(count):
    """The hardest case that must not fail: latency and a share of changed images on their
    limits."""
    limits = Thresholds()
    failed = 0
    for number in range(COMPARISONS):
        chance = np.random.default_rng(1000 + number)
        rows = vectors(chance, count)
        changed = jittered(rows, chance)
        # The vectors of 5 % of all images are rotated, so the 5th percentile is on its limit in
        # every draw.
        far = chance.random(count) < 0.05
        changed[far] += (
            0.25
            * np.linalg.norm(rows[far], axis=1, keepdims=True)
            * 48**-0.5
            * (chance.standard_normal(rows[far].shape))
        )
        made = pairs(rows, changed, chance, slower=limits.max_latency_ratio)
        failed += outcome(made, number) == "fail"
    assert failed <= RATE * COMPARISONS


@pytest.mark.parametrize(
    "count", [8, *(pytest.param(count, marks=pytest.mark.slow) for count in (60, 200))]
)
def test_intervals_cover_the_true_value_as_often_as_they_say(count):
    """Mean, median and 5th percentile of a skewed value, with 400 samples each."""
    missed = np.zeros(6)
    truths = {"mean": 1.0, 0.5: np.log(2), 0.05: -np.log(0.95)}
    for number in range(400):
        values = np.random.default_rng(number).exponential(size=count)
        bootstrap = Bootstrap(count, seed=number, replicates=1000)
        rates = {"low_rate": RATE, "high_rate": RATE}
        found_intervals = [
            (bootstrap.mean(values, bounds=(0.0, np.inf), **rates), truths["mean"]),
            *(
                (bootstrap.quantile(values, q, bounds=(0.0, np.inf), **rates), truths[q])
                for q in (0.5, 0.05)
            ),
        ]
        for place, (interval, truth) in enumerate(found_intervals):
            missed[2 * place] += interval.low > truth
            missed[2 * place + 1] += interval.high < truth
    # Allow binomial noise of 400 draws. For a skewed value, intervals of the mean miss it from
    # above more often.
    allowed = [0.08, 0.16, 0.08, 0.08, 0.08, 0.08]
    assert [each <= 400 * share for each, share in zip(missed, allowed, strict=True)] == [True] * 6


def test_a_kind_of_image_that_was_not_met_is_not_ruled_out():
    interval = Bootstrap(40, seed=0).mean(
        np.ones(40), low_rate=0.05, high_rate=0.01, bounds=(0.0, 1.0)
    )
    assert interval.low == pytest.approx(1 - unseen(40, 0.05))
    assert unseen(59, 0.05) <= 0.05 < unseen(58, 0.05)


def test_the_same_pairs_and_seed_give_the_same_report():
    chance = np.random.default_rng(1)
    rows = vectors(chance, 50)
    made = pairs(rows, jittered(rows, chance), chance)
    one, other = (to_json(judge(made, Thresholds(), seed=3)) for _ in range(2))
    assert one == other


def test_neighbours_that_tie_for_a_place_are_kept():
    rows = np.repeat(np.eye(4), 5, axis=0)  # all rows of a group are equally near
    before = similarities(rows)
    kept, _ = overlap(before, similarities(rows[:, ::-1]), 3)
    assert kept.tolist() == [1.0] * 20
    assert found(rows, rows).all()
    own, _ = rank_correlation(before, before)
    assert own == pytest.approx(np.ones(20))


def test_pseudo_values_are_those_of_leaving_an_image_out():
    chance = np.random.default_rng(2)
    rows = vectors(chance, 25)
    other = rows + 0.8 * chance.standard_normal(rows.shape)
    before, after = similarities(rows), similarities(other)
    kept, pseudo = overlap(before, after, 4)
    without = -24 * _without_each(rows, other)
    assert pseudo - pseudo.mean() == pytest.approx(without - without.mean(), abs=1e-9)
    assert pseudo.mean() == pytest.approx(kept.mean())


def _without_each(rows, other):
    found_means = []
    for row in range(len(rows)):
        left = np.delete(np.arange(len(rows)), row)
        found_means.append(
            overlap(similarities(rows[left]), similarities(other[left]), 4)[0].mean()
        )
    return np.array(found_means)
