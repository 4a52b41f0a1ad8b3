"""Confidence intervals from resampling the images with replacement.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993. Two corrections apply to small
samples: intervals of means are widened from the normal to Student's quantile, and no interval is
narrower than the sample size allows (see `unseen` and `_order_statistics`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
REPLICATES = 4000
"""Number of resamples."""
CHUNK = 250
"""Resamples per step of `Bootstrap.quantile`, to bound its memory."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    estimate: float
    low: float
    high: float


class Bootstrap:
    """Resamples of `count` images.

    The arguments `low_rate` and `high_rate` of its methods are the probabilities that the true
    value is below `low` and above `high`.
    """

    def __init__(self, count: int, *, seed: int, replicates: int = REPLICATES) -> None:
        self.count = count
        chance = np.random.default_rng(seed)
        shares = np.full(count, 1 / count)
        self.draws = chance.multinomial(count, shares, size=replicates).astype(np.float32)

    def mean(
        self,
        values: Values,
        *,
        low_rate: float,
        high_rate: float,
        bounds: tuple[float, float] = (-math.inf, math.inf),
    ) -> Interval:
        """The mean over images; `bounds` are the smallest and the largest possible value."""
        estimate = float(values.mean())
        means = self.draws @ values.astype(np.float32) / self.count
        low, high = np.quantile(means, [low_rate, 1 - high_rate])
        low = estimate - (estimate - low) * _student(low_rate, self.count)
        high = estimate + (high - estimate) * _student(high_rate, self.count)
        least, largest = bounds
        if math.isfinite(least):
            low = min(low, estimate - unseen(self.count, low_rate) * (estimate - least))
        if math.isfinite(largest):
            high = max(high, estimate + unseen(self.count, high_rate) * (largest - estimate))
        return Interval(
            estimate=estimate, low=max(float(low), least), high=min(float(high), largest)
        )

    def quantile(
        self,
        values: Values,
        share: float,
        *,
        low_rate: float,
        high_rate: float,
        bounds: tuple[float, float],
    ) -> Interval:
        """A quantile: the smallest value that the fraction `share` of the images do not exceed."""
        order = np.sort(values)
        place = np.argsort(values, kind="stable")
        drawn = np.empty(len(self.draws), np.int64)
        for start in range(0, len(self.draws), CHUNK):
            part = self.draws[start : start + CHUNK, place].cumsum(axis=1)
            drawn[start : start + CHUNK] = (part < share * self.count - 1e-6).sum(axis=1)
        found = order[np.minimum(drawn, self.count - 1)]
        low, high = np.quantile(found, [low_rate, 1 - high_rate])
        below, above = _order_statistics(self.count, share, low_rate, high_rate)
        exact_low = order[below] if below is not None else bounds[0]
        exact_high = order[above] if above is not None else bounds[1]
        estimate = order[max(0, math.ceil(share * self.count - 1e-9) - 1)]
        return Interval(
            estimate=float(estimate),
            low=float(min(low, exact_low)),
            high=float(max(high, exact_high)),
        )


def unseen(count: int, rate: float) -> float:
    """How common a kind of image may be without one of it among `count` images.

    Returns a fraction. The probability that a sample misses a kind this common is `rate`.
    """
    return float(1 - rate ** (1 / count))


def _student(rate: float, count: int) -> float:
    """The factor from a normal interval to Student's, after Abramowitz and Stegun 26.7.5.

    It includes the correction from the bootstrap's variance to the unbiased one.
    """
    if count < 3:
        return math.inf
    z, free = -NormalDist().inv_cdf(rate), count - 1
    student = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return student / z * math.sqrt(count / free)


def _order_statistics(
    count: int, share: float, low_rate: float, high_rate: float
) -> tuple[int | None, int | None]:
    """Rows of the sorted values that bound the quantile for any distribution.

    The value of rank r exceeds the quantile if fewer than r of the `count` images are below the
    quantile, and that number is binomial. A bound is None if the sample is too small for it.
    """
    below, above, total = None, None, 0.0
    for hits in range(count + 1):
        chance = math.exp(
            math.lgamma(count + 1)
            - math.lgamma(hits + 1)
            - math.lgamma(count - hits + 1)
            + hits * math.log(share)
            + (count - hits) * math.log1p(-share)
        )
        total += chance  # at most `hits` images are below the quantile
        if total <= low_rate and hits < count:
            below = hits
        # The value of row `hits` is below the quantile if more than `hits` images are.
        if above is None and 1 - total <= high_rate and hits < count:
            above = hits
    return below, above
