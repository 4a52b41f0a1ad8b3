"""The report of a check as lines for a terminal."""

from __future__ import annotations

from featurewire_rollout.check.measures import Measure
from featurewire_rollout.check.report import Report


def to_text(report: Report) -> str:
    """The verdict, one line per measure, and the notes."""
    pairs = report.pairs
    lines = [
        f"{pairs.model}: stable {pairs.stable.version}, canary {pairs.canary.version}, "
        f"{int(pairs.usable.sum())} images",
        f"{report.verdict.outcome}: {report.verdict.text}"
        if not report.verdict.text.startswith(report.verdict.outcome)
        else report.verdict.text,
    ]
    width = max((len(each.title) for each in report.measures), default=0)
    for each in report.measures:
        interval = each.interval
        lines.append(
            f"  {each.title:<{width}}  {interval.estimate:8.4f}  "
            f"[{interval.low:.4f}, {interval.high:.4f}]  {_limit(each)}".rstrip()
        )
    lines += [*report.verdict.notes, *report.remarks]
    return "\n".join(lines)


def _limit(measure: Measure) -> str:
    """The limit and the outcome, such as `at least 0.995: kept`; empty without a limit."""
    parts = []
    if measure.at_least is not None:
        parts.append(f"at least {measure.at_least:g}")
    if measure.at_most is not None:
        parts.append(f"at most {measure.at_most:g}")
    effect = f"(shows changes from {measure.smallest_effect:.2g})"
    return f"{', '.join(parts)}: {measure.outcome} {effect}" if parts else ""
