"""Intervals by bootstrap: images are drawn again, with replacement, some thousand times.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993. Two corrections for few images:
intervals of means are widened from the normal to Student's quantile, and an interval never claims
what so few images cannot show (see `unseen` and `order_statistic`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

__all__ = ["Bootstrap", "Interval", "unseen"]

Values = npt.NDArray[np.float64]
REPLICATES = 4000
CHUNK = 250


@dataclass(frozen=True, kw_only=True)
class Interval:
    estimate: float
    low: float
    high: float


class Bootstrap:
    """Draws of `count` images. `low_rate` and `high_rate` of the methods are the chances that the
    true value lies below `low` and above `high`."""

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
        """The mean of a value an image; `bounds` are the least and the largest value there is."""
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
        """A quantile of a value an image: the smallest that `share` of the images do not exceed."""
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
    """The share of images of a kind that `count` images miss altogether with chance `rate`."""
    return float(1 - rate ** (1 / count))


def _student(rate: float, count: int) -> float:
    """How much wider than normal an interval of `count` values is; Abramowitz and Stegun 26.7.5.

    With the factor that makes the bootstrap's spread that of an unbiased variance.
    """
    if count < 3:
        return math.inf
    z, free = -NormalDist().inv_cdf(rate), count - 1
    student = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return student / z * math.sqrt(count / free)


def _order_statistics(
    count: int, share: float, low_rate: float, high_rate: float
) -> tuple[int | None, int | None]:
    """Rows of the sorted values between which the quantile lies, whatever the distribution.

    The value of rank r is above the quantile with the chance that fewer than r of `count` images
    are below it, which is binomial. None: so few images show no such bound.
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
        total += chance  # at most `hits` of the images are below the quantile
        if total <= low_rate and hits < count:
            below = hits
        # The value of row `hits` is below the quantile when more than `hits` images are.
        if above is None and 1 - total <= high_rate and hits < count:
            above = hits
    return below, above
