"""The report as one page for people. Nothing is loaded from anywhere."""

from __future__ import annotations

import html
import math

import numpy as np

from featurewire_rollout.check import neighbours
from featurewire_rollout.check.measures import Measure
from featurewire_rollout.check.pairs import Pairs
from featurewire_rollout.check.render import plots
from featurewire_rollout.check.report import Report

__all__ = ["to_html"]

MOST_IN_PLOT = 500
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5d6670; --line: #d6dbe1;
  --ground: #fff; --raised: #f5f7f9; --one: #2563b0; --other: #b4541a;
  --good: #1a7f4b; --bad: #c2352b; --open: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --soft: #98a2ad;
  --line: #39414a; --ground: #14181c; --raised: #1d2329; --one: #6ea8f0; --other: #e8935a;
  --good: #4cc38a; --bad: #f0776c; --open: #d9a33c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 28px 20px 60px; background: var(--ground);
  color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 21px; margin: 0 0 14px; } h2 { font-size: 17px; margin: 38px 0 8px; }
p { margin: 6px 0; max-width: 75ch; } .soft { color: var(--soft); }
.verdict { border-left: 6px solid var(--tone); background: var(--raised);
  padding: 12px 16px; border-radius: 4px; }
.verdict b { display: block; font-size: 19px; color: var(--tone); }
.pass { --tone: var(--good); } .fail { --tone: var(--bad); }
.inconclusive { --tone: var(--open); }
.wide { overflow-x: auto; font-size: 14px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: var(--soft); font-size: 13px; text-align: left; }
th, td { padding: 5px 9px 5px 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
td.wrap { white-space: normal; overflow-wrap: anywhere; min-width: 220px; }
.number { text-align: right; }
.word.kept { color: var(--good); } .word.broken { color: var(--bad); font-weight: 600; }
.word.open { color: var(--open); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(280px, 1fr)); gap: 22px; }
figure { margin: 0; } figcaption { font-weight: 600; font-size: 14px; margin-bottom: 4px; }
svg { max-width: 100%; height: auto; display: block; } td svg { max-width: none; }
svg text { fill: var(--soft); font-size: 11px; } .middle { text-anchor: middle; }
.end { text-anchor: end; } svg .name { fill: var(--ink); }
.rule { stroke: var(--line); } .limit { stroke: var(--bad); stroke-dasharray: 3 2; }
.curve { fill: none; stroke-width: 2; } .curve.one { stroke: var(--one); }
.curve.other { stroke: var(--other); } .cell { fill: var(--one); }
rect.kept { fill: var(--good); opacity: .45; } rect.broken { fill: var(--bad); opacity: .45; }
rect.open { fill: var(--open); opacity: .45; } rect.shown { fill: var(--soft); opacity: .35; }
.estimate { fill: var(--ink); }
.worst { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 16px; }
.case { background: var(--raised); border-radius: 4px; padding: 10px 12px; min-width: 0; }
.case header { font-size: 13px; overflow-wrap: anywhere; margin-bottom: 6px; }
.case div { display: grid; grid-template-columns: repeat(3, 1fr); gap: 8px; }
.case figure { font-size: 11px; color: var(--soft); min-width: 0; overflow-wrap: anywhere; }
.case img, .none { width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 3px;
  background: var(--ground); display: block; }
"""


def to_html(report: Report) -> str:
    """The whole HTML document."""
    pairs, verdict = report.pairs, report.verdict
    title = (
        f"{pairs.model}: version {pairs.canary.version} (canary) and "
        f"version {pairs.stable.version} (stable)"
    )
    text = verdict.text
    if not text.startswith(verdict.outcome):
        text = f"{verdict.outcome}: {text}"
    counted = f"{int(pairs.usable.sum())} images compared"
    extras = [
        (pairs.duplicates, "with bytes seen before left out"),
        (pairs.left_out, "beyond the limit left out"),
    ]
    counted += "".join(f", {count} {what}" for count, what in extras if count)
    notes = "".join(f"<p>{_(each)}</p>" for each in [*verdict.notes, *report.remarks])
    sections = [
        f'<h1>{_(title)}</h1><div class="verdict {verdict.outcome}"><b>{_(text)}</b>',
        f'<span class="soft">{_(counted)}; seed {report.seed}</span></div>{notes}',
        _measures(report.measures, report.thresholds.error_rate),
        _plots(report),
        _cutoffs(report),
        _worst(report),
        _errors(pairs),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_(title)}</title><style>{STYLE}</style></head>\n"
        f"<body>{''.join(sections)}</body></html>\n"
    )


def _(text: str) -> str:
    return html.escape(text)


def _measures(measures: list[Measure], rate: float) -> str:
    if not measures:
        return ""
    rows = []
    for each in measures:
        interval = each.interval
        limits = [
            f"{word} {value:g}"
            for word, value in (("≥", each.at_least), ("≤", each.at_most))
            if value is not None
        ]
        effect = each.smallest_effect
        outcome = "" if each.outcome == "shown" else each.outcome
        rows.append(
            f"<tr><td>{_(each.title)}</td><td>{plots.interval_bar(each)}</td>"
            f'<td class="number">{interval.estimate:.4f}</td>'
            f'<td class="number">{_figure(interval.low)} to {_figure(interval.high)}</td>'
            f'<td class="number">{_figure(effect) if outcome else ""}</td>'
            f'<td>{", ".join(limits)}</td><td class="word {outcome}">{outcome}</td></tr>'
        )
    return (
        '<h2>Measures</h2><div class="wide"><table><tr><th>measure</th><th></th>'
        '<th class="number">estimate</th><th class="number">interval</th>'
        '<th class="number">smallest effect</th><th>limit</th>'
        f"<th></th></tr>{''.join(rows)}</table></div>"
        '<p class="soft">A limit is kept or broken when the whole interval is on one side of it, '
        f"and open when it is inside. A fail or a pass is wrong at most {100 * rate:g} % of the "
        "time. A change for the worse by less than the smallest effect can hide in this many "
        "images. Dashed: the limit.</p>"
    )


def _plots(report: Report) -> str:
    pairs = report.pairs
    usable = np.flatnonzero(pairs.usable)[:MOST_IN_PLOT]
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
    made = "".join(
        f"<figure><figcaption>{_(title)}</figcaption>{plot}</figure>"
        for title, plot in figures
        if plot
    )
    return f'<h2>Distributions</h2><div class="plots">{made}</div>' if made else ""


def _cutoffs(report: Report) -> str:
    if not report.cutoffs:
        return ""
    rows = []
    for each in report.cutoffs:
        new, interval = "too few such pairs", ""
        if each.new is not None:
            new = f"<b>{each.new.estimate:.3f}</b>"
            interval = f"{each.new.low:.3f} to {each.new.high:.3f}"
        rows.append(
            f'<tr><td class="number">{each.old:.2f}</td><td class="number">{new}</td>'
            f'<td class="number">{interval}</td>'
            f'<td class="number">{100 * each.false_matches:.3g} %</td>'
            f'<td class="number">{_percent(each.found_before)}</td>'
            f'<td class="number">{_percent(each.found_after)}</td></tr>'
        )
    head = "".join(
        f'<th class="number">{each}</th>'
        for each in (
            "old cut-off",
            "new cut-off",
            "95 % interval",
            "false matches",
            "crops found, old",
            "crops found, new",
        )
    )
    return (
        '<h2>Similarity cut-offs</h2><div class="wide"><table>'
        f"<tr>{head}</tr>{''.join(rows)}</table></div>"
        '<p class="soft">The new cut-off lets as many false matches through, once everything is '
        "embedded with canary. A false match is a pair of two different images that reaches the "
        "cut-off.</p>"
    )


def _worst(report: Report) -> str:
    cases = []
    for row, before, after in report.worst_pairs():
        pictures = "".join(
            f"<figure>{_picture(report.pairs, place)}{_(caption)}</figure>"
            for place, caption in (
                (row, "image"),
                (before, f"nearest before: {report.pairs.names[before]}"),
                (after, f"nearest after: {report.pairs.names[after]}"),
            )
        )
        cases.append(
            f'<div class="case"><header><b>{report.cosines[row]:.4f}</b> '
            f"{_(report.pairs.names[row])}</header><div>{pictures}</div></div>"
        )
    if not cases:
        return ""
    return (
        '<h2>Images that changed most</h2><p class="soft">The cosine of the two vectors (the lower '
        "one of image and crop), and the image's nearest neighbour in each version.</p>"
        f'<div class="worst">{"".join(cases)}</div>'
    )


def _picture(pairs: Pairs, row: int) -> str:
    source = pairs.thumbnails.get(row)
    return f'<img alt="" src="{source}">' if source else '<span class="none"></span>'


def _errors(pairs: Pairs) -> str:
    failed = sorted({*pairs.stable.errors, *pairs.canary.errors})
    if not failed:
        return ""
    rows = "".join(
        f'<tr><td class="wrap">{_(pairs.names[row])}</td>'
        f"<td>{_(pairs.stable.errors.get(row, 'ok'))}</td>"
        f"<td>{_(pairs.canary.errors.get(row, 'ok'))}</td></tr>"
        for row in failed
    )
    return (
        '<h2>Images without a vector</h2><div class="wide"><table><tr><th>image</th>'
        f"<th>stable</th><th>canary</th></tr>{rows}</table></div>"
    )


def _figure(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "no bound"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"
