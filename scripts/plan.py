"""Compute the replicas, and the cores for decoding, that a rate and a latency need.

    python scripts/plan.py --rate 300 --latency-ms 1000 --images-per-second 80 --one-image-ms 40

The last two numbers are one replica's, from `python -m bench.serve_latency`. docs/scaling.md
explains the model, its limits and its validation.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

CORE_SHARE = 0.7
"""Maximum share of a core's time for decoding: above it, requests wait for a core."""
FULL = 0.97
"""Maximum load of a replica, as a fraction of its capacity: above it, the model is unreliable."""
MOMENTS = 24
"""Number of arrival times within a batch at which the model evaluates an image."""


class PlanError(Exception):
    """The numbers are inconsistent or have no solution; the text is one line."""


@dataclass(frozen=True, kw_only=True)
class Replica:
    """A server that computes one batch after another, each in `fixed + per_image * rows`."""

    fixed: float
    """Seconds."""
    per_image: float
    """Seconds."""
    batch: int
    """Rows of the largest batch."""

    @classmethod
    def measured(cls, *, one_image: float, per_second: float, batch: int) -> Replica:
        """Derive a replica from seconds of a single image and images/s in full batches.

        Raises PlanError if no linear batch time fits both.
        """
        full = batch / per_second
        if batch == 1:
            return cls(fixed=0.0, per_image=full, batch=1)
        per_image = (full - one_image) / (batch - 1)
        if not 0 <= per_image <= one_image:
            raise PlanError(
                f"one image takes {1000 * one_image:.0f} ms and a full batch of {batch} "
                f"{1000 * full:.0f} ms: a full batch must take as long as 1 to {batch} images; "
                "measure both again"
            )
        return cls(fixed=one_image - per_image, per_image=per_image, batch=batch)

    def seconds(self, rows: int) -> float:
        return self.fixed + self.per_image * rows

    @property
    def capacity(self) -> float:
        """Images per second in full batches."""
        return self.batch / self.seconds(self.batch)


def poisson(mean: float, count: int) -> np.ndarray:
    """Poisson probabilities of 0 … count - 1."""
    numbers = np.arange(count)
    logs = np.cumsum(np.log(np.maximum(numbers, 1)))
    return np.exp(numbers * math.log(mean) - mean - logs) if mean else (numbers == 0).astype(float)


def waiting_when_a_batch_ends(replica: Replica, rate: float) -> np.ndarray:
    """Stationary distribution of the number of waiting images when a batch ends.

    The Markov chain of Bailey's bulk-service queue: of x waiting images, min(x, batch) form the
    next batch (the next arrival, if x is 0), and a Poisson number arrives during it. See N. T. J.
    Bailey, "On queueing processes with bulk service", J. R. Stat. Soc. B 16, 1954.
    """
    states = 40 * replica.batch
    step = np.zeros((states, states))
    for waits in range(states):
        rows = min(max(waits, 1), replica.batch)
        left = max(waits - rows, 0)
        step[waits, left:] = poisson(rate * replica.seconds(rows), states - left)
    step[:, -1] += 1 - step.sum(axis=1)  # the last state includes all larger ones
    equations = step.T - np.eye(states)
    equations[-1] = 1.0  # replace a redundant equation by: the probabilities sum to 1
    found = np.linalg.solve(equations, np.append(np.zeros(states - 1), 1.0))
    return np.maximum(found, 0)


def latencies(replica: Replica, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Seconds from arrival to answer, ascending, and the cumulative probability of each."""
    batch, waits = replica.batch, waiting_when_a_batch_ends(replica, rate)
    own = np.arange(1, batch + 1)
    times, weights = [np.array([replica.seconds(1)])], [np.array([waits[0]])]  # empty queue
    for rows in range(1, batch + 1):
        # Probabilities that a batch of this many rows starts and leaves 0, 1, … images waiting.
        left = np.array(waits[rows:] if rows == batch else waits[rows : rows + 1])
        if rows == 1:
            left[0] += waits[0]
        if left.sum() < 1e-9:
            continue
        takes = replica.seconds(rows)
        for moment in (np.arange(MOMENTS) + 0.5) / MOMENTS * takes:
            ahead = np.convolve(left, poisson(rate * moment, 12 * batch))
            places = np.flatnonzero(ahead > 1e-12)
            full, place = np.divmod(places, batch)  # full batches ahead, and position in its own
            start = (takes - moment) + full * replica.seconds(batch)
            later = np.stack([poisson(rate * each, batch) for each in start])
            size = np.zeros((len(places), batch))  # probabilities of its own batch's size
            for row, first in enumerate(place):
                size[row, first:] = later[row, : batch - first]
                size[row, -1] += 1 - size[row].sum()
            share = ahead[places] * rate * takes / MOMENTS
            times.append((start[:, None] + replica.fixed + replica.per_image * own).ravel())
            weights.append((share[:, None] * size).ravel())
    found, weight = np.concatenate(times), np.concatenate(weights)
    order = np.argsort(found)
    total = np.cumsum(weight[order])
    return found[order], total / total[-1]


def quantiles(replica: Replica, rate: float, shares: Sequence[float]) -> list[float]:
    """Quantiles of the latency, in seconds."""
    found, total = latencies(replica, rate)
    return [
        float(found[min(int(np.searchsorted(total, share)), len(found) - 1)]) for share in shares
    ]


def simulate(replica: Replica, rate: float, *, images: int, seed: int = 1) -> list[float]:
    """Latencies of this many images at one replica, simulated event by event."""
    chance = random.Random(seed)
    arrivals, now = [], 0.0
    for _ in range(images):
        now += chance.expovariate(rate)
        arrivals.append(now)
    found, first, free = [], 0, 0.0
    while first < images:
        start = max(free, arrivals[first])
        last = first
        while last < images and last - first < replica.batch and arrivals[last] <= start:
            last += 1
        free = start + replica.seconds(last - first)
        found += [free - arrival for arrival in arrivals[first:last]]
        first = last
    return found


@dataclass(frozen=True, kw_only=True)
class Row:
    """Load and latency for a number of replicas."""

    replicas: int
    used: float
    """Load as a fraction of the capacity."""
    median: float
    tail: float


def rows(replica: Replica, rate: float, percentile: float, latency: float) -> list[Row]:
    """Rows with one more replica each, until the latency holds. Raises PlanError if it never
    does."""
    if replica.seconds(1) > latency:
        raise PlanError(
            f"one image alone takes {1000 * replica.seconds(1):.0f} ms, longer than --latency-ms; "
            "more replicas do not help"
        )
    found: list[Row] = []
    count = max(math.ceil(rate / (FULL * replica.capacity)), 1)
    while not found or found[-1].tail > latency:
        if len(found) > 50:
            raise PlanError(
                f"even {count} replicas do not keep {percentile:g} % within "
                f"{1000 * latency:.0f} ms, because a batch takes too long; make it smaller"
            )
        each = rate / count
        median, tail = quantiles(replica, each, (0.5, percentile / 100))
        used = each / replica.capacity
        found.append(Row(replicas=count, used=used, median=median, tail=tail))
        count += 1
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="plan", description=__doc__.splitlines()[0])
    positive: dict[str, Any] = {"type": _positive, "metavar": "X"}
    parser.add_argument("--rate", required=True, help="images per second at the peak", **positive)
    parser.add_argument("--latency-ms", required=True, help="limit of the tail", **positive)
    parser.add_argument("--percentile", default=99.0, help="the tail (default: 99)", **positive)
    parser.add_argument(
        "--images-per-second", required=True, help="of one replica in full batches", **positive
    )
    parser.add_argument("--one-image-ms", required=True, help="one image alone", **positive)
    parser.add_argument("--batch", type=int, default=16, help="rows of a full batch (default: 16)")
    parser.add_argument("--spare", type=int, default=1, help="replicas that may fail (default: 1)")
    parser.add_argument(
        "--decode-ms",
        type=float,
        default=0.0,
        help="CPU ms to decode an image for a GPU, 7 to 9 for 640 pixels (default: 0, for a CPU "
        "replica, whose throughput includes decoding)",
    )
    options = parser.parse_args(argv)
    if not 1 <= options.batch <= 256:
        parser.error("--batch is 1 to 256")
    if options.percentile >= 100 or options.spare < 0 or options.decode_ms < 0:
        parser.error("--percentile is below 100, --spare and --decode-ms are 0 or more")
    try:
        replica = Replica.measured(
            one_image=options.one_image_ms / 1000,
            per_second=options.images_per_second,
            batch=options.batch,
        )
        table = rows(replica, options.rate, options.percentile, options.latency_ms / 1000)
    except PlanError as error:
        print(f"plan: {error}", file=sys.stderr)
        return 1
    print(f"replicas   used   median ms   {options.percentile:g} % ms")
    for row in table:
        print(
            f"{row.replicas:8d}  {100 * row.used:4.0f} %  {1000 * row.median:9.0f}  "
            f"{1000 * row.tail:8.0f}"
        )
    needed = table[-1].replicas
    print(f"\n{needed + options.spare} replicas: {needed}, and {options.spare} that may fail")
    if options.decode_ms:
        cores = options.rate * options.decode_ms / 1000 / CORE_SHARE
        each = math.ceil(cores / needed)
        print(
            f"{math.ceil(cores)} cores decode {options.rate:g} images/s: {each} per GPU "
            f"({options.decode_ms:g} ms per image, cores {100 * CORE_SHARE:.0f} % busy)"
        )
    return 0


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError("not a positive number")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
