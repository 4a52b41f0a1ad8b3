"""The report of a check as one HTML page. The page loads nothing from elsewhere."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from importlib import resources
from string import Template

import numpy as np

from featurewire_rollout.check import neighbours
from featurewire_rollout.check.cutoffs import Cutoff
from featurewire_rollout.check.measures import Measure
from featurewire_rollout.check.pairs import Pairs
from featurewire_rollout.check.render import plots
from featurewire_rollout.check.report import Report

MAX_PLOTTED_IMAGES = 500
"""Maximum number of images whose pairs the density plot shows."""


def to_html(report: Report) -> str:
    """The whole document. `page.html` holds its frame and its style."""
    pairs, verdict = report.pairs, report.verdict
    text = verdict.text
    if not text.startswith(verdict.outcome):
        text = f"{verdict.outcome}: {text}"
    counted = f"{int(pairs.usable.sum())} images compared"
    if pairs.duplicates:
        counted += f", {pairs.duplicates} duplicates left out"
    if pairs.left_out:
        counted += f", {pairs.left_out} beyond the limit left out"
    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=_(
            f"{pairs.model}: version {pairs.canary.version} (canary) and "
            f"version {pairs.stable.version} (stable)"
        ),
        outcome=verdict.outcome,
        verdict=_(text),
        counted=counted,
        seed=report.seed,
        notes="\n".join(f"<p>{_(each)}</p>" for each in [*verdict.notes, *report.remarks]),
        error_percent=f"{100 * report.thresholds.error_rate:g}",
        measures=_rows(map(_measure, report.measures)),
        plots=_figures(report),
        cutoffs=_rows(map(_cutoff, report.cutoffs)),
        worst=_worst(report),
        errors=_rows(_errors(pairs)),
    )


def _(text: str) -> str:
    return html.escape(text)


def _rows(rows: Iterable[Sequence[str]]) -> str:
    """The body of a table. The cells are HTML."""
    made = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    return "\n".join(f"<tr>{cells}</tr>" for cells in made or ["<td>none</td>"])


def _measure(measure: Measure) -> Sequence[str]:
    interval, judged = measure.interval, measure.outcome != "shown"
    limits = [("≥", measure.at_least), ("≤", measure.at_most)]
    return (
        _(measure.title),
        plots.interval_bar(measure),
        f"{interval.estimate:.4f}",
        f"{_figure(interval.low)} to {_figure(interval.high)}",
        _figure(measure.smallest_effect) if judged else "",
        ", ".join(f"{word} {value:g}" for word, value in limits if value is not None),
        f'<span class="{measure.outcome}">{measure.outcome}</span>' if judged else "",
    )


def _figures(report: Report) -> str:
    pairs = report.pairs
    usable = np.flatnonzero(pairs.usable)[:MAX_PLOTTED_IMAGES]
    figures = []
    if pairs.same_dimension and np.isfinite(report.cosines).any():
        limit = report.thresholds.min_cosine
        plot = plots.steps([("cosine", report.cosines)], across="cosine", limits=(limit,))
        figures.append(("An image's vectors from both versions", plot))
    if len(usable) > 2:
        upper = np.triu_indices(len(usable), 1)
        before, after = (
            neighbours.similarities(side.vectors[usable])[upper]
            for side in (pairs.stable, pairs.canary)
        )
        plot = plots.density(before, after, across="cosine in stable", up="cosine in canary")
        figures.append(("Pairs of different images", plot))
    times = [("stable", pairs.stable.latencies * 1000), ("canary", pairs.canary.latencies * 1000)]
    figures.append(("Latency", plots.steps(times, across="milliseconds")))
    return "\n".join(
        f"<figure><figcaption>{title}</figcaption>{plot}</figure>"
        for title, plot in figures
        if plot
    )


def _cutoff(cutoff: Cutoff) -> Sequence[str]:
    new, interval = "too few such pairs", ""
    if cutoff.new is not None:
        new = f"<b>{cutoff.new.estimate:.3f}</b>"
        interval = f"{cutoff.new.low:.3f} to {cutoff.new.high:.3f}"
    found = (_percent(cutoff.found_before), _percent(cutoff.found_after))
    return (f"{cutoff.old:.2f}", new, interval, f"{100 * cutoff.false_matches:.3g} %", *found)


def _worst(report: Report) -> str:
    names, cases = report.pairs.names, []
    for row, before, after in report.worst_pairs():
        captions = {
            "image": row,
            f"nearest before: {names[before]}": before,
            f"nearest after: {names[after]}": after,
        }
        pictures = "".join(
            f"<figure>{_picture(report.pairs, place)}{_(caption)}</figure>"
            for caption, place in captions.items()
        )
        cases.append(
            f'<div class="case"><header><b>{report.cosines[row]:.4f}</b> {_(names[row])}</header>'
            f"<div>{pictures}</div></div>"
        )
    return "\n".join(cases)


def _picture(pairs: Pairs, row: int) -> str:
    source = pairs.thumbnails.get(row)
    return f'<img alt="" src="{source}">' if source else '<span class="none"></span>'


def _errors(pairs: Pairs) -> list[Sequence[str]]:
    stable, canary = pairs.stable.errors, pairs.canary.errors
    return [
        (_(pairs.names[row]), _(stable.get(row, "ok")), _(canary.get(row, "ok")))
        for row in sorted({*stable, *canary})
    ]


def _figure(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "no bound"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"
