"""Measure how two versions differ, and compare each interval with its limit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from featurewire_rollout.check import neighbours
from featurewire_rollout.check.bootstrap import Bootstrap, Interval
from featurewire_rollout.check.pairs import Pairs, Vectors
from featurewire_rollout.check.thresholds import Thresholds

MIN_IMAGES = 6
"""Minimum number of images for any measure."""
NEIGHBOUR_COUNT = 10
"""The k of overlap@k; smaller samples use a smaller k."""
TAIL_FRACTION = 0.05
"""The 5th percentile, as a fraction."""
MAX_MORE_IMAGES = 1_000_000
"""Beyond this number, more images are not worth a try."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One figure with its interval and its limit.

    `outcome` is `kept` if the whole interval is on the right side of the limit, `broken` if the
    whole interval is on the other side, `open` if the limit is inside, and `shown` without a limit.
    """

    name: str
    title: str
    interval: Interval
    count: int
    """Number of images measured."""
    at_least: float | None = None
    at_most: float | None = None
    more_images: int | None = None
    """Estimate of how many more images would decide an open measure."""

    @property
    def outcome(self) -> str:
        if self.at_least is None and self.at_most is None:
            return "shown"
        low, high = self.interval.low, self.interval.high
        at_least = -math.inf if self.at_least is None else self.at_least
        at_most = math.inf if self.at_most is None else self.at_most
        if low >= at_least and high <= at_most:
            return "kept"
        return "broken" if high < at_least or low > at_most else "open"

    @property
    def smallest_effect(self) -> float:
        """The smallest change for the worse that this many images can show."""
        if self.at_most is None:
            return self.interval.estimate - self.interval.low
        if self.at_least is None:
            return self.interval.high - self.interval.estimate
        return max(
            self.interval.estimate - self.interval.low, self.interval.high - self.interval.estimate
        )


def measure(pairs: Pairs, thresholds: Thresholds, *, seed: int) -> tuple[list[Measure], Vectors]:
    """All measures that these images allow, and each image's cosine (NaN without vectors)."""
    return _Measuring(pairs, thresholds, seed).run()


class _Measuring:
    def __init__(self, pairs: Pairs, thresholds: Thresholds, seed: int) -> None:
        self.pairs, self.limits = pairs, thresholds
        self.seed = seed
        self.usable = np.flatnonzero(pairs.usable)
        self.stable = pairs.stable.vectors[self.usable]
        self.canary = pairs.canary.vectors[self.usable]
        self.crops = _usable_crops(pairs, self.usable)
        self.measures: list[Measure] = []
        # A pass needs every limit kept, so each is tested at the whole rate (an
        # intersection-union test). A fail needs one broken limit, so the limits share the rate
        # (Bonferroni).
        gates = 4 + 4 * pairs.same_dimension + (self.crops is not None and pairs.same_dimension)
        gates += pairs.bridged is not None
        self.pass_rate = thresholds.error_rate
        self.fail_rate = thresholds.error_rate / gates
        self._bootstraps: dict[int, Bootstrap] = {}

    def bootstrap(self, count: int) -> Bootstrap:
        if count not in self._bootstraps:
            self._bootstraps[count] = Bootstrap(count, seed=self.seed)
        return self._bootstraps[count]

    def run(self) -> tuple[list[Measure], Vectors]:
        cosines = np.full(len(self.pairs.names), np.nan)
        if len(self.usable) >= MIN_IMAGES:
            if self.pairs.same_dimension:
                cosines[self.usable] = self._cosines()
            self._neighbours()
            self._recall()
            self._bridge()
            self._latency()
        if len(self.pairs.names) >= MIN_IMAGES:
            self._errors()
        return self.measures, cosines

    def _rates(self, worse: str) -> dict[str, float]:
        """Error rates of both ends of an interval whose `low`, `high` or `both` ends are worse."""
        return {
            "low_rate": self.pass_rate if worse == "low" else self.fail_rate,
            "high_rate": self.pass_rate if worse == "high" else self.fail_rate,
        }

    def _add(
        self,
        name: str,
        title: str,
        interval: Interval,
        count: int,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        floor: float | None = None,
    ) -> None:
        made = Measure(
            name=name,
            title=title,
            interval=interval,
            count=count,
            at_least=at_least,
            at_most=at_most,
        )
        if made.outcome == "open":
            more = _more_images(made, self.pass_rate, floor)
            made = Measure(**(made.__dict__ | {"more_images": more}))
        self.measures.append(made)

    def _cosines(self) -> Vectors:
        cosines = _cosine(self.stable, self.canary)
        if self.crops is not None:
            rows, stable, canary = self.crops
            cosines[rows] = np.minimum(cosines[rows], _cosine(stable, canary))
        count = len(cosines)
        bootstrap = self.bootstrap(count)
        for name, title, share, limit in (
            ("cosine_median", "cosine, median", 0.5, self.limits.min_cosine_median),
            ("cosine_p5", "cosine, 5th percentile", TAIL_FRACTION, self.limits.min_cosine),
        ):
            interval = bootstrap.quantile(cosines, share, bounds=(-1.0, 1.0), **self._rates("low"))
            self._add(name, title, interval, count, at_least=limit, floor=1 - share)
        lengths = np.linalg.norm(self.stable, axis=1), np.linalg.norm(self.canary, axis=1)
        if lengths[0].all() and lengths[1].all():
            interval = bootstrap.quantile(
                lengths[1] / lengths[0], 0.5, bounds=(0.0, math.inf), **self._rates("both")
            )
            change = self.limits.max_norm_change
            self._add(
                "norm_ratio",
                "norm ratio, median",
                interval,
                count,
                at_least=1 - change,
                at_most=1 + change,
                floor=0.5,
            )
        return cosines

    def _neighbours(self) -> None:
        count = len(self.usable)
        before, after = (neighbours.similarities(each) for each in (self.stable, self.canary))
        k = min(NEIGHBOUR_COUNT, (count - 1) // 3)
        rates, bootstrap = self._rates("low"), self.bootstrap(count)
        _, pseudo = neighbours.overlap(before, after, k)
        interval = bootstrap.mean(pseudo, bounds=(0.0, 1.0), **rates)
        least = self.limits.min_overlap
        title = f"neighbour overlap@{k}"
        floor = _kept_share(interval.estimate, least)
        self._add(f"overlap_at_{k}", title, interval, count, at_least=least, floor=floor)

        own, pseudo = neighbours.rank_correlation(before, after)
        worst = min(0.0, float(own.min()))
        interval = bootstrap.mean(pseudo, bounds=(worst, 1.0), **rates)
        least = self.limits.min_rank_correlation
        floor = _kept_share(interval.estimate, least, worst=worst)
        title = "rank correlation of similarities"
        self._add("rank_correlation", title, interval, count, at_least=least, floor=floor)

    def _recall(self) -> None:
        if self.crops is None:
            return
        rows, stable, canary = self.crops
        count = len(rows)
        rates, bootstrap = self._rates("high"), self.bootstrap(count)
        own = neighbours.found(stable, self.stable[rows]).astype(float)
        searches = [("recall_at_1_stable", "recall@1 of crops, stable in its own index", own)]
        new = neighbours.found(canary, self.canary[rows]).astype(float)
        searches.append(("recall_at_1_canary", "recall@1 of crops, canary in its own index", new))
        if self.pairs.same_dimension:
            across = neighbours.found(canary, self.stable[rows]).astype(float)
            title = "recall@1 of crops, canary in stable's index"
            searches.append(("recall_at_1_across", title, across))
        for name, title, hits in searches:
            interval = bootstrap.mean(hits, bounds=(0.0, 1.0), **self._rates("low"))
            self._add(name, title, interval, count)
        if self.pairs.same_dimension:
            interval = bootstrap.mean(own - across, bounds=(-1.0, 1.0), **rates)
            most = self.limits.max_recall_loss
            floor = _kept_share(-interval.estimate, -most, worst=-1.0)
            title = "recall@1 of crops, loss in stable's index"
            self._add("recall_loss", title, interval, count, at_most=most, floor=floor)

    def _bridge(self) -> None:
        """Compare bridged vectors with stable's, and search stable's index with them.

        The queries are crops, or the images if crops are missing. The loss is relative to canary
        in its own index, which embedding everything again would give. A query without a bridged
        vector counts as a miss.
        """
        if self.pairs.bridged is None:
            return
        bridged, count = self.pairs.bridged.vectors[self.usable], len(self.usable)
        k = min(NEIGHBOUR_COUNT, (count - 1) // 3)
        answered = np.isfinite(bridged).all(axis=1)
        before = neighbours.similarities(self.stable)
        after = neighbours.unit(np.nan_to_num(bridged)) @ neighbours.unit(self.stable).T
        np.fill_diagonal(after, -2)
        _, pseudo = neighbours.overlap(before, after, k)
        rates = self._rates("low")
        pseudo = np.where(answered, pseudo, 0.0)
        interval = self.bootstrap(count).mean(pseudo, bounds=(0.0, 1.0), **rates)
        title = f"bridge: neighbour overlap@{k} with stable"
        self._add(f"bridge_overlap_at_{k}", title, interval, count)

        rows, queries, own = np.arange(count), bridged, self.canary
        if self.crops is not None and self.pairs.bridged.crops is not None:
            rows, _, own = self.crops
            queries = self.pairs.bridged.crops[self.usable][rows]
        count, bootstrap = len(rows), self.bootstrap(len(rows))
        what = "images" if queries is bridged else "crops"
        for nearest in sorted({1, k}):
            hits = neighbours.among_nearest(queries, self.stable[rows], nearest).astype(float)
            title = f"bridge: recall@{nearest} of {what} in stable's index"
            interval = bootstrap.mean(hits, bounds=(0.0, 1.0), **rates)
            self._add(f"bridge_recall_at_{nearest}", title, interval, count)
        again = neighbours.among_nearest(own, self.canary[rows], k).astype(float)
        interval = bootstrap.mean(again - hits, bounds=(-1.0, 1.0), **self._rates("high"))
        most = self.limits.max_recall_loss
        floor = _kept_share(-interval.estimate, -most, worst=-1.0)
        title = f"bridge: loss of recall@{k} of {what}"
        self._add("bridge_loss", title, interval, count, at_most=most, floor=floor)

    def _latency(self) -> None:
        before = self.pairs.stable.latencies[self.usable]
        after = self.pairs.canary.latencies[self.usable]
        timed = np.isfinite(before) & np.isfinite(after) & (before > 0)
        count = int(timed.sum())
        if count < MIN_IMAGES:
            return
        interval = self.bootstrap(count).quantile(
            after[timed] / before[timed], 0.5, bounds=(0.0, math.inf), **self._rates("high")
        )
        most = self.limits.max_latency_ratio
        title = "latency ratio, median"
        self._add("latency_ratio", title, interval, count, at_most=most, floor=0.5)

    def _errors(self) -> None:
        count = len(self.pairs.names)
        failed = np.zeros((2, count))
        failed[0, list(self.pairs.stable.errors)] = 1
        failed[1, list(self.pairs.canary.errors)] = 1
        interval = self.bootstrap(count).mean(
            failed[1] - failed[0], bounds=(-1.0, 1.0), **self._rates("high")
        )
        most = self.limits.max_error_increase
        floor = _kept_share(-interval.estimate, -most, worst=-1.0)
        title = "images without a vector, increase"
        self._add("error_increase", title, interval, count, at_most=most, floor=floor)


def _usable_crops(pairs: Pairs, usable: np.ndarray) -> tuple[np.ndarray, Vectors, Vectors] | None:
    """Rows among the usable ones that have crops on both sides, and the crops' vectors."""
    stable, canary = pairs.stable.crops, pairs.canary.crops
    if stable is None or canary is None:
        return None
    stable, canary = stable[usable], canary[usable]
    rows = np.flatnonzero(~(np.isnan(stable).any(axis=1) | np.isnan(canary).any(axis=1)))
    return (rows, stable[rows], canary[rows]) if len(rows) >= MIN_IMAGES else None


def _cosine(one: Vectors, other: Vectors) -> Vectors:
    """The cosine of each pair of rows; 1 for two zeros."""
    cosines = (neighbours.unit(one) * neighbours.unit(other)).sum(axis=1)
    return np.where(one.any(axis=1) | other.any(axis=1), cosines, 1.0)


def _kept_share(estimate: float, limit: float, *, worst: float = 0.0) -> float | None:
    """The fraction of images that must not be of an unseen worst kind, so that the limit holds."""
    if estimate <= limit:
        return None
    if limit <= worst:
        return 0.0
    return 1 - (estimate - limit) / (estimate - worst)


def _more_images(measure: Measure, rate: float, floor: float | None) -> int | None:
    """Estimate how many more images would decide, as an interval shrinks with their square root.

    `floor` is the probability that an image is not of the kind that would break the limit. The
    sample must be large enough to miss that kind with a probability below `rate`. Returns None if
    the figure is so close to its limit that more images would not help.
    """
    interval, count = measure.interval, measure.count
    needed = 0.0
    if floor is not None and 0 < floor < 1:
        needed = math.log(rate) / math.log(floor)
    for limit in (measure.at_least, measure.at_most):
        if limit is None or not interval.low <= limit <= interval.high or count < needed:
            continue
        distance = interval.estimate - limit
        if distance == 0:
            return None
        reach = interval.low if distance > 0 else interval.high
        needed = max(needed, count * ((interval.estimate - reach) / distance) ** 2)
    needed = max(needed, count + 1)
    return None if needed > MAX_MORE_IMAGES else math.ceil(needed) - count
