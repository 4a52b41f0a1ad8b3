"""Small plots as inline SVG. Colours and fonts come from the page's style."""

from __future__ import annotations

import html
import math

import numpy as np
import numpy.typing as npt

from featurewire_rollout.check.measures import Measure

Values = npt.NDArray[np.float64]
WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 12, 40
CELLS = 44


def interval_bar(measure: Measure) -> str:
    """A bar with the interval, a dot with the estimate and marks with the limits."""
    width, height, margin = 130, 22, 6
    interval = measure.interval
    limits = [each for each in (measure.at_least, measure.at_most) if each is not None]
    marks = [interval.estimate, *limits]
    marks += [each for each in (interval.low, interval.high) if math.isfinite(each)]
    least, largest = min(marks), max(marks)
    space = (largest - least) * 0.12 or abs(largest) * 0.01 or 0.01
    least, largest = least - space, largest + space

    def x(value: float) -> float:
        share = (min(max(value, least), largest) - least) / (largest - least)
        return margin + share * (width - 2 * margin)

    low, high = x(interval.low), x(interval.high)
    parts = [
        f'<line class="rule" x1="{margin}" x2="{width - margin}" y1="11" y2="11"/>',
        f'<rect class="{measure.outcome}" x="{low:.1f}" y="7" rx="2"'
        f' width="{max(high - low, 2):.1f}" height="8"/>',
    ]
    parts += [
        f'<line class="limit" x1="{x(each):.1f}" x2="{x(each):.1f}" y1="1" y2="21"/>'
        for each in limits
    ]
    parts.append(f'<circle class="estimate" cx="{x(interval.estimate):.1f}" cy="11" r="3.5"/>')
    return _svg(width, height, parts, f"{measure.title}: {interval.estimate:.4g}")


def steps(series: list[tuple[str, Values]], *, across: str, limits: tuple[float, ...] = ()) -> str:
    """The cumulative distribution of one or two series."""
    series = [(name, np.sort(values[np.isfinite(values)])) for name, values in series]
    series = [(name, values) for name, values in series if len(values)]
    if not series:
        return ""
    ends = [each for _, values in series for each in (values[0], np.quantile(values, 0.99))]
    ends += [series[0][1][-1]] if len(series) == 1 else []
    least, largest = _padded(min(*ends, *limits), max(*ends, *limits))
    frame = _Frame(least, largest, 0.0, 1.0)
    parts = frame.axes(across, "share of images")
    for limit in limits:
        parts.append(frame.upright(limit))
    for style, (_, values) in zip(("one", "other"), series, strict=False):
        shares = np.arange(1, len(values) + 1) / len(values)
        if len(values) > 400:
            chosen = np.linspace(0, len(values) - 1, 400).astype(int)
            values, shares = values[chosen], shares[chosen]
        points, height = [f"M{frame.x(values[0]):.1f},{frame.y(0):.1f}"], 0.0
        for value, height in zip(values, shares, strict=True):
            place = f"{frame.x(min(float(value), largest)):.1f}"
            points.append(f"H{place}V{frame.y(height):.1f}")
        points.append(f"H{frame.x(largest):.1f}")
        parts.append(f'<path class="curve {style}" d="{"".join(points)}"/>')
    if len(series) > 1:
        for row, (style, (name, _)) in enumerate(zip(("one", "other"), series, strict=False)):
            y = HEIGHT - BOTTOM - 30 + 16 * row
            parts.append(
                f'<line class="curve {style}" x1="{WIDTH - 110}" x2="{WIDTH - 90}"'
                f' y1="{y}" y2="{y}"/>'
                f'<text x="{WIDTH - 84}" y="{y + 4}">{html.escape(name)}</text>'
            )
    return _svg(WIDTH, HEIGHT, parts, f"{across}, as a cumulative share of images")


def density(before: Values, after: Values, *, across: str, up: str) -> str:
    """The density of pairs of values, on a logarithmic scale; darker is denser."""
    if not len(before):
        return ""
    ends = np.concatenate([before, after])
    least, largest = _padded(float(ends.min()), float(ends.max()))
    frame = _Frame(least, largest, least, largest)
    counts, _, _ = np.histogram2d(before, after, CELLS, [[least, largest]] * 2)
    scale = np.log1p(counts) / math.log1p(counts.max())
    wide = (WIDTH - LEFT - RIGHT) / CELLS
    high = (HEIGHT - TOP - BOTTOM) / CELLS
    cells = [
        f'<rect class="cell" x="{LEFT + column * wide:.1f}"'
        f' y="{HEIGHT - BOTTOM - (row + 1) * high:.1f}"'
        f' width="{wide:.1f}" height="{high:.1f}"'
        f' opacity="{0.15 + 0.85 * scale[column, row]:.2f}"/>'
        for column, row in zip(*np.nonzero(counts), strict=True)
    ]
    diagonal = (
        f'<line class="limit" x1="{frame.x(least):.1f}" y1="{frame.y(least):.1f}"'
        f' x2="{frame.x(largest):.1f}" y2="{frame.y(largest):.1f}"/>'
    )
    return _svg(WIDTH, HEIGHT, [*cells, *frame.axes(across, up), diagonal], f"{across}; {up}")


class _Frame:
    """Converts values to pixels of a plot."""

    def __init__(self, left: float, right: float, bottom: float, top: float) -> None:
        self.left, self.right, self.bottom, self.top = left, right, bottom, top

    def x(self, value: float) -> float:
        return LEFT + (value - self.left) / (self.right - self.left) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.bottom) / (self.top - self.bottom)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def upright(self, value: float) -> str:
        x = self.x(value)
        return f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'

    def axes(self, across: str, up: str) -> list[str]:
        floor, edge = HEIGHT - BOTTOM, WIDTH - RIGHT
        parts = [
            f'<line class="rule" x1="{LEFT}" x2="{edge}" y1="{floor}" y2="{floor}"/>',
            f'<line class="rule" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{floor}"/>',
        ]
        for value in _ticks(self.left, self.right):
            x = self.x(value)
            parts.append(f'<text class="middle" x="{x:.1f}" y="{floor + 15}">{value:.6g}</text>')
        for value in _ticks(self.bottom, self.top):
            y = self.y(value)
            parts.append(f'<text class="end" x="{LEFT - 6}" y="{y + 4:.1f}">{value:.6g}</text>')
        middle = (LEFT + edge) / 2
        parts.append(
            f'<text class="middle name" x="{middle}" y="{HEIGHT - 6}">{html.escape(across)}</text>'
        )
        centre = (TOP + floor) / 2
        parts.append(
            f'<text class="middle name" transform="translate(11,{centre}) rotate(-90)">'
            f"{html.escape(up)}</text>"
        )
        return parts


def _ticks(least: float, largest: float) -> list[float]:
    """About four round numbers within the range."""
    rough = (largest - least) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= rough)
    first = math.ceil(least / step - 1e-9)
    return [round(each * step, 12) for each in range(first, math.floor(largest / step + 1e-9) + 1)]


def _padded(least: float, largest: float) -> tuple[float, float]:
    space = (largest - least) * 0.04 or max(abs(largest) * 0.001, 1e-6)
    return float(least - space), float(largest + space)


def _svg(width: int, height: int, parts: list[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
        f' aria-label="{html.escape(title, quote=True)}">{"".join(parts)}</svg>'
    )
