"""Prometheus' text format: counters, gauges and histograms with any name.

Prometheus' client libraries require counter names to end in ``_total``, and TensorFlow Serving's
names do not. The format takes about a hundred lines of code, so we write it here.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections.abc import Iterator

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

MAX_SERIES = 1000
"""Series per metric. Label values such as model names come from requests, so without a limit a
client could create any number of them."""
OVERFLOW = "(other)"
"""The label value of the series that collects everything beyond `MAX_SERIES`."""


class Family:
    """All series of one metric. The subclasses define what each series contains."""

    kind: str

    def __init__(self, name: str, labels: tuple[str, ...], help_text: str) -> None:
        self.name = name
        self.labels = labels
        self.help_text = help_text
        self._lock = threading.Lock()
        self._series: dict[tuple[str, ...], list[float]] = {}

    def _cell(self, values: tuple[str, ...]) -> list[float]:
        cell = self._series.get(values)
        if cell is None:
            if len(self._series) >= MAX_SERIES:
                values = (OVERFLOW,) * len(self.labels)
            cell = self._series.setdefault(values, self._empty())
        return cell

    def forget(self, *first: str) -> None:
        """Remove the series whose label values begin with `first`."""
        with self._lock:
            for values in [v for v in self._series if v[: len(first)] == first]:
                del self._series[values]

    def _empty(self) -> list[float]:
        raise NotImplementedError

    def lines(self) -> Iterator[str]:
        """The metric in Prometheus' text format; nothing until it has a series."""
        with self._lock:
            series = [(values, list(cell)) for values, cell in self._series.items()]
        if not series:
            return
        yield f"# HELP {self.name} {self.help_text}"
        yield f"# TYPE {self.name} {self.kind}"
        for values, cell in series:
            pairs = [f'{n}="{_escape(v)}"' for n, v in zip(self.labels, values, strict=True)]
            yield from self._samples(pairs, cell)

    def _samples(self, pairs: list[str], cell: list[float]) -> Iterator[str]:
        raise NotImplementedError


class Number(Family):
    """A metric with one number per set of labels."""

    def add(self, *values: str, amount: float = 1) -> None:
        with self._lock:
            self._cell(values)[0] += amount

    def _empty(self) -> list[float]:
        return [0]

    def _samples(self, pairs: list[str], cell: list[float]) -> Iterator[str]:
        yield _sample(self.name, pairs, cell[0])


class Counter(Number):
    """A sum that only grows."""

    kind = "counter"

    def total(self) -> int:
        """The sum of all series."""
        with self._lock:
            return int(sum(cell[0] for cell in self._series.values()))


class Histogram(Family):
    """Number of observations per bucket, their sum and their total number."""

    kind = "histogram"

    def __init__(
        self, name: str, labels: tuple[str, ...], help_text: str, limits: tuple[float, ...]
    ) -> None:
        super().__init__(name, labels, help_text)
        self._limits = limits

    def observe(self, *values: str, value: float) -> None:
        index = bisect_left(self._limits, value)
        with self._lock:
            cell = self._cell(values)
            cell[index] += 1
            cell[-1] += value

    def _empty(self) -> list[float]:
        return [0] * (len(self._limits) + 2)  # one count per limit, one for larger values, the sum

    def _samples(self, pairs: list[str], cell: list[float]) -> Iterator[str]:
        total = 0.0
        for limit, count in zip((*self._limits, None), cell[:-1], strict=True):
            total += count
            le = 'le="+Inf"' if limit is None else f'le="{limit:g}"'
            yield _sample(f"{self.name}_bucket", [*pairs, le], total)
        yield _sample(f"{self.name}_sum", pairs, cell[-1])
        yield _sample(f"{self.name}_count", pairs, total)


class Gauge(Number):
    """A number that can go up and down."""

    kind = "gauge"

    def set(self, *values: str, value: float) -> None:
        with self._lock:
            self._cell(values)[0] = value


def _sample(name: str, pairs: list[str], value: float) -> str:
    labels = f"{{{','.join(pairs)}}}" if pairs else ""
    return f"{name}{labels} {_number(value)}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isfinite(value):
        return str(int(value)) if value == int(value) else repr(float(value))
    return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[str(value)]
