"""The verdicts of `check`, from vectors to one line."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from featurewire_rollout.check import Pairs, Side, Thresholds, judge, to_html, to_json, to_text

COUNT = 120
ROWS = np.random.default_rng(0).standard_normal((COUNT, 32))
NOISE = np.random.default_rng(1).standard_normal((COUNT, 32))


def judged(
    canary=ROWS,
    *,
    stable=ROWS,
    spaces=(None, None),
    slower=1.0,
    errors=(),
    limits=None,
    crops=True,
    bridge=None,
    bridged=None,
):
    times = 0.1 * np.exp(0.1 * np.random.default_rng(2).standard_normal(COUNT))
    sides = []
    for version, rows in ((1, stable), (2, canary)):
        rows = np.array(rows)
        space = spaces[version - 1]
        failed = dict.fromkeys(errors, "corrupt") if version == 2 else {}
        rows[list(failed)] = np.nan
        sides.append(
            Side(
                name="stable" if version == 1 else "canary",
                version=version,
                vectors=rows,
                latencies=times * (slower if version == 2 else 1),
                errors=failed,
                crops=rows + 0.1 if crops else None,
                manifest=None if space is None else {"vector_space": space} | (bridge or {}),
            )
        )
    names = tuple(f"{row}.jpg" for row in range(COUNT))
    if bridged is not None:
        bridged = dataclasses.replace(
            sides[1], name="canary's bridge", vectors=bridged, crops=bridged if crops else None
        )
    made = Pairs(model="m", names=names, stable=sides[0], canary=sides[1], bridged=bridged)
    return judge(made, limits or Thresholds())


def said(report) -> str:
    return f"{report.exit_status} {report.verdict.text}"


def notes(report) -> str:
    return " ".join([*report.verdict.notes, *report.remarks])


def test_equal_vectors_are_the_same_space_with_a_manifest_or_without():
    assert said(judged()) == "0 same space"
    assert "declares no vector space" in notes(judged())
    assert said(judged(spaces=("a", "a"))) == "0 same space, as the manifests say"


def test_digests_that_differ_never_give_the_same_space():
    text = said(judged(spaces=("a", "b")))
    assert text.startswith(
        "0 compatible within a cosine of 0.9999 for 95 % of images and a loss of 2."
    )
    assert text.endswith("% of neighbours")


def test_measures_overrule_digests_that_agree():
    report = judged(ROWS + 0.5 * NOISE, spaces=("a", "a"))
    assert said(report).startswith("1 new space: rebuild the index (cosine, median 0.8")
    assert "the measures contradict them" in notes(report)


def test_small_differences_are_compatible_within_what_is_sure():
    report = judged(ROWS + 0.06 * NOISE, limits=Thresholds(min_overlap=0.8))
    assert report.exit_status == 0
    assert report.verdict.space == "compatible"
    low = next(each.interval.low for each in report.measures if each.name == "cosine_p5")
    assert f"a cosine of {np.floor(low * 1e4) / 1e4:.4f} for 95 %" in report.verdict.text


def test_the_same_order_on_other_axes_is_a_new_space_to_bridge():
    turned = ROWS @ np.linalg.qr(NOISE[:32])[0]
    report = judged(turned)
    assert said(report).startswith("1 new space: rebuild the index")
    assert "a bridge may work" in notes(report)


def test_a_new_space_with_a_bridge_to_the_old_one_says_what_it_keeps():
    kept = {"recall_at_1": 0.93, "recall_at_10": 0.989}
    bridge = {
        "vector_spaces": [{"vector_space": "a", "bridged": True, "retention": kept}],
    }
    report = judged(NOISE, spaces=("a", "b"), bridge=bridge)
    assert said(report) == "1 new space, bridged: retention 0.98 at 10"
    assert to_json(report)["verdict"]["bridge"] == 0.989
    assert "--accept-bridge" in notes(report)
    slow = judged(NOISE, spaces=("a", "b"), bridge=bridge, slower=2.0)
    assert "bridged: retention 0.98 at 10; not fit to serve: latency" in said(slow)
    # A bridge to another space than stable's, or without a measured retention, does not count.
    assert said(judged(NOISE, spaces=("c", "b"), bridge=bridge)).startswith("1 new space: rebuild")
    del bridge["vector_spaces"][0]["retention"]
    assert said(judged(NOISE, spaces=("a", "b"), bridge=bridge)).startswith("1 new space: rebuild")


KEPT = {
    "vector_spaces": [
        {"vector_space": "a", "bridged": True, "retention": {"recall_at_10": 0.989}},
    ]
}


def by_bridge(bridged, **options):
    return judged(NOISE, spaces=("a", "b"), bridge=KEPT, bridged=bridged, **options)


def test_the_measured_bridge_is_reported_next_to_its_manifest():
    report = by_bridge(ROWS + 0.5 * NOISE)
    text, found = said(report), {each.name: each for each in report.measures}
    assert text.startswith("1 new space, bridged: retention 0.98 at 10 (here: overlap@10 0.")
    assert text.endswith(" recall@1 1.00, recall@10 1.00)")
    assert 0.2 < found["bridge_overlap_at_10"].interval.estimate < 0.9
    assert found["bridge_loss"].outcome == "kept"
    assert to_json(report)["bridged"]["version"] == 2
    assert found["bridge_loss"].title in to_text(report)
    assert to_json(judged(spaces=("a", "b")))["bridged"] is None


@pytest.mark.parametrize("crops", [True, False])
@pytest.mark.parametrize("bad", ["unrelated", "one vector", "no vectors", "a fifth without"])
def test_a_bridge_that_answers_badly_is_none(bad, crops):
    vectors = {
        "unrelated": np.random.default_rng(5).standard_normal(ROWS.shape),
        "one vector": np.ones_like(ROWS),
        "no vectors": np.full_like(ROWS, np.nan),
        "a fifth without": np.where(np.arange(COUNT)[:, None] % 5 == 0, np.nan, ROWS),
    }
    report = by_bridge(vectors[bad], crops=crops)
    what = "crops" if crops else "images"
    text = f"1 new space, and its bridge keeps too little here: bridge: loss of recall@10 of {what}"
    assert said(report).startswith(text)
    assert to_json(report)["verdict"]["bridge"] is None
    assert "The manifest says retention 0.98 at 10" in notes(report)
    assert "--accept-bridge" not in notes(report)


def test_another_dimension_is_a_new_space_and_the_rest_is_measured():
    report = judged(np.hstack([ROWS, NOISE]))
    assert said(report).startswith("1 new space: rebuild the index")
    names = {each.name for each in report.measures}
    assert {"overlap_at_10", "rank_correlation", "recall_at_1_canary"} <= names
    assert "cosine_p5" not in names
    assert report.cutoffs
    assert "<td>rank correlation of similarities</td>" in to_html(report)


def test_a_version_that_is_slow_or_refuses_images_fails():
    slow = judged(slower=2.0)
    assert said(slow) == "1 same space; not fit to serve: latency ratio, median 2"
    refusing = judged(errors=range(0, COUNT, 5))
    assert said(refusing).startswith("1 ")
    assert "not fit to serve: images without a vector, increase 0.2" in said(refusing)
    name = refusing.pairs.names[0]
    assert f"<td>{name}</td><td>ok</td><td>{refusing.pairs.canary.errors[0]}</td>" in to_html(
        refusing
    )


def test_a_version_that_refuses_everything_fails():
    report = judged(errors=range(COUNT))
    assert report.exit_status == 1
    assert "images without a vector, increase 1" in report.verdict.text
    json.dumps(to_json(report), allow_nan=False)
    to_html(report)


def test_a_figure_on_its_limit_says_that_no_number_of_images_helps():
    report = judged(slower=np.repeat([1.4, 1.5, 1.6], [59, 2, 59]))
    assert said(report).startswith("3 inconclusive: on the limit (latency ratio")
    assert "More images would not help" in notes(report)


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_next_to_no_images_are_inconclusive(count):
    report = judged()
    pairs = report.pairs
    sides = [
        dataclasses.replace(
            side,
            vectors=side.vectors[:count],
            latencies=side.latencies[:count],
            crops=side.crops[:count],
        )
        for side in (pairs.stable, pairs.canary)
    ]
    few = Pairs(model="m", names=pairs.names[:count], stable=sides[0], canary=sides[1])
    report = judge(few, Thresholds())
    assert said(report) == f"3 inconclusive: {59 - count} more images would tell"
    to_html(report)
    to_text(report)


def test_vectors_of_nothing_but_zeros_do_not_break_the_check():
    rows = np.array(ROWS)
    rows[0] = 0
    report = judged(rows)
    json.dumps(to_json(report), allow_nan=False)
    assert report.exit_status in (0, 1, 3)


def test_the_cutoffs_follow_the_false_matches():
    """Canary's similarities are compressed in comparison with stable's, and so is the cut-off."""
    narrow = np.hstack([ROWS, np.full((COUNT, 1), 4.0)])  # adds the same to every similarity
    report = judged(narrow, limits=Thresholds())
    chosen = next(each for each in report.cutoffs if each.old == 0.5)
    assert chosen.new is not None
    assert chosen.new.low <= chosen.new.estimate <= chosen.new.high
    assert chosen.new.estimate > chosen.old
    unit = narrow / np.linalg.norm(narrow, axis=1, keepdims=True)
    pairs = (unit @ unit.T)[np.triu_indices(COUNT, 1)]
    assert (pairs >= chosen.new.estimate - 1e-9).mean() == pytest.approx(
        chosen.false_matches, abs=2 / len(pairs)
    )
    assert next(each for each in report.cutoffs if each.old == 0.95).new is None


SCATTER = np.random.default_rng(3)
DEGENERATE = {
    # Sums of bytes plus a constant, as in toy networks: almost parallel.
    "parallel": SCATTER.integers(0, 1000, (COUNT, 1)) + np.arange(8.0) + 1000,
    "equal": np.ones((COUNT, 8)),
    "orthogonal": np.eye(COUNT),
    "two kinds": np.repeat(ROWS[:2], COUNT // 2, axis=0),
    "twelve kinds": np.repeat(ROWS[:12], COUNT // 12, axis=0),
    "nothing": np.zeros((COUNT, 8)),
}


@pytest.mark.parametrize("kind", DEGENERATE)
@pytest.mark.parametrize("rounding", [0.0, 1e-7])
def test_the_same_vectors_are_the_same_space_even_if_nearly_constant(kind, rounding):
    rows = DEGENERATE[kind]
    other = rows * (1 + rounding * SCATTER.standard_normal(rows.shape))
    report = judged(other, stable=rows, crops=False)
    assert said(report) == "0 same space"
    flat = "neighbours and ranks show nothing" in notes(report)
    assert flat == (kind not in ("two kinds", "twelve kinds"))


@pytest.mark.parametrize("kind", ["equal", "nothing"])
def test_a_version_that_gives_every_image_the_same_vector_fails(kind):
    rows = DEGENERATE[kind]
    report = judged(rows, stable=ROWS[:, :8], crops=False)
    assert said(report).startswith("1 new space")
    ranks = next(each for each in report.measures if each.name == "rank_correlation")
    assert ranks.interval.estimate == 0


@pytest.mark.parametrize(
    "limits",
    [
        {"min_rank_correlation": -1.0},
        {"min_rank_correlation": 0.0},
        {"min_overlap": 0.0},
        {"max_recall_loss": 1.0},
        {"max_error_increase": 1.0},
        {"min_cosine": -1.0, "min_cosine_median": -1.0},
        {"min_cosine": 1.0, "min_cosine_median": 1.0, "same_cosine": 1.0},
        {"min_overlap": 1.0, "max_recall_loss": 0.0, "max_error_increase": 0.0},
        {"max_norm_change": 1e-9, "max_latency_ratio": 1e-9, "error_rate": 1e-9},
    ],
)
def test_limits_at_the_end_of_their_range_give_a_verdict(limits):
    equal = DEGENERATE["equal"]
    for stable, canary in ((ROWS, ROWS), (ROWS, -NOISE[:, :5]), (equal, equal)):
        report = judged(canary, stable=stable, limits=Thresholds(**limits))
        assert report.exit_status in (0, 1, 3)
        json.dumps(to_json(report), allow_nan=False)


BAD: dict[str, tuple[Any, ...]] = {
    "min_cosine_median": (-1.1, 1.1),
    "min_cosine": (-1.1, 1.1),
    "min_overlap": (-0.1, 1.1),
    "max_recall_loss": (-0.1, 1.1),
    "min_rank_correlation": (-1.1, 1.1),
    "max_norm_change": (0.0, 1.0),
    "max_latency_ratio": (0.0, float("inf")),
    "max_error_increase": (-0.1, 1.1),
    "same_cosine": (-1.1, 1.1),
    "error_rate": (0.0, 0.21),
}


@pytest.mark.parametrize("name", Thresholds().__dict__)
def test_a_limit_out_of_its_range_is_refused_by_name(name):
    for value in (*BAD[name], float("nan"), "0.5"):
        with pytest.raises(ValueError, match=rf"^{name} is a .*, not {value}$"):
            Thresholds(**{name: value})
