"""The page docs/measurements.md: every figure of the result file, and nothing else."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.parts import NAMES

PLOTS = {
    "network": ["throughput-batch"],
    "image": ["one-image"],
    "serving": ["throughput-concurrency", "throughput-latency"],
}
"""Names of the plots below a part's tables."""
HEAD = """<!-- `python -m bench --report` writes this from bench/results/latest.json. -->
# Measurements

`make bench` measured this; [bench/](../bench/README.md) says how to run it. Machines differ and
drift, so a figure stands beside a peer or a limit of the same run, and the ratio is what to keep.
The median of all rounds comes first, then the lowest and the highest. Ratios are taken round by
round. A part is measured in one run, on the machine that it names; `others` is what other programs
took of its processors.

The network is the stand-in: the real structure with random weights, which cost what learned ones
cost. Photos are the samples, as JPEGs of 640 pixels.
"""


def page(parts: Mapping[str, Any]) -> str:
    """Markdown; parts in their order, those that were not measured left out."""
    sections = [HEAD]
    for name in NAMES:
        if name in parts:
            sections.append(f"## {name.capitalize()}\n\n{_about(name)}\n")
            sections.append(of_part(parts[name]))
            sections += [f"![{plot}](measurements/{plot}.png)\n" for plot in PLOTS.get(name, ())]
            sections.append(_conditions(parts[name]))
    return "\n".join(sections)


def of_part(part: Mapping[str, Any]) -> str:
    """The tables of a part."""
    tables: dict[str, list[Mapping[str, Any]]] = {}
    for figure in part["figures"]:
        tables.setdefault(figure["table"], []).append(figure)
    return "\n".join(f"**{title}**\n\n{_table(rows)}" for title, rows in tables.items())


def _about(name: str) -> str:
    """What the part's own docstring says."""
    spec = importlib.util.find_spec(f"bench.parts.{name}")
    assert spec is not None
    assert spec.origin is not None
    return ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or ""


def _conditions(part: Mapping[str, Any]) -> str:
    machine = part["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    kind = "a quick run, " if part["quick"] else ""
    return (
        f"{part['date']}, {kind}{part['seconds']:.0f} s; {machine['processor']}, "
        f"{machine['cores']} cores ({', '.join(machine['instruction sets'])}), "
        f"{machine['memory GiB']} GiB; {versions}; others {part['others']:.0%}.\n"
    )


def _table(figures: list[Mapping[str, Any]]) -> str:
    ratios = _in_order(title for figure in figures for title in figure["ratios"])
    fullest_first = sorted(figures, key=lambda figure: -len(figure["more"]))
    more = _in_order(title for figure in fullest_first for title in figure["more"])
    spread = any(len(figure["values"]) > 1 for figure in figures)
    header = ["", "median", *(["low to high"] if spread else []), *ratios, *more]
    rows = [header, ["---", *["---:"] * (len(header) - 1)]]
    for figure in figures:
        row = [figure["name"], f"{number(figure['median'])} {figure['unit']}"]
        if spread:
            row.append(_range(figure, number) if len(figure["values"]) > 1 else "")
        row += [_ratio(figure, title) for title in ratios]
        row += [_cell(figure["more"].get(title, "")) for title in more]
        rows.append(row)
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _in_order(titles: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(titles))


def _ratio(figure: Mapping[str, Any], title: str) -> str:
    ratio = figure["ratios"].get(title)
    if ratio is None:
        return ""
    if ratio["peer"] == figure["name"]:
        return "1"
    if len(figure["values"]) == 1:
        return f"{ratio['median']:.2f}"
    return f"{ratio['median']:.2f} ({_range(ratio, '{:.2f}'.format)})"


def _range(spread: Mapping[str, Any], shown: Any) -> str:
    return f"{shown(spread['low'])} to {shown(spread['high'])}"


def _cell(value: float | str) -> str:
    return value if isinstance(value, str) else number(value)


def number(value: float) -> str:
    """Three digits that count, all before the point, without an exponent."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:.0f}"
    text = f"{value:#.3g}"
    return f"{value:.2g}" if "e" in text else text
