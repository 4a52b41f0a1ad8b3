"""The page docs/measurements.md: every figure of the result file."""

from __future__ import annotations

import ast
import importlib.util
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.parts import NAMES

PLOTS = {
    "network": ["throughput-batch"],
    "image": ["one-image"],
    "serving": ["throughput-concurrency", "throughput-latency"],
}
"""Plots to show below a part's tables."""
HEAD = """<!-- `python -m bench --report` writes this from bench/results/latest.json. -->
# Measurements

For readers of the other pages: the details of each figure, with its spread, its machine, and the
limit or peer that it is compared with. `make bench` measured everything here, and
[bench/](../bench/README.md) says how to run it.

Each figure is the median of all rounds, followed by the lowest and the highest value. Machines
differ and their speed drifts, so rely on the ratios: figures of the same round are compared. Each
part was measured in one run, on the machine named below it; `others` is the CPU time that other
programs used during the run.

The network is the stand-in: Inception ResNet V2 with random weights, which cost the same as learned
ones. The photos are the samples, as JPEGs of 640 pixels.
"""


def page(parts: Mapping[str, Any]) -> str:
    """The page as Markdown: the measured parts, in their order."""
    sections = [HEAD]
    for name in NAMES:
        if name in parts:
            sections.append(f"## {name.capitalize()}\n\n{_about(name)}\n")
            sections.append(of_part(parts[name]))
            sections += [f"![{plot}](measurements/{plot}.png)\n" for plot in PLOTS.get(name, ())]
            sections.append(_conditions(parts[name]))
    return "\n".join(sections)


def of_part(part: Mapping[str, Any]) -> str:
    """The tables of a part, as Markdown."""
    tables: dict[str, list[Mapping[str, Any]]] = {}
    for figure in part["figures"]:
        tables.setdefault(figure["table"], []).append(figure)
    return "\n".join(f"**{title}**\n\n{_table(rows)}" for title, rows in tables.items())


def _about(name: str) -> str:
    """The docstring of the part's module."""
    spec = importlib.util.find_spec(f"bench.parts.{name}")
    assert spec is not None
    assert spec.origin is not None
    return ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or ""


def _conditions(part: Mapping[str, Any]) -> str:
    machine = part["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    kind = "a quick run, " if part["quick"] else ""
    text = (
        f"{part['date']}, {kind}{part['seconds']:.0f} s; {machine['processor']}, "
        f"{machine['cores']} cores ({', '.join(machine['instruction sets'])}), "
        f"{machine['memory GiB']} GiB; {versions}; others {part['others']:.0%}."
    )
    return f"{textwrap.fill(text, 100, break_on_hyphens=False)}\n"


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
    """Three significant digits, or more if they are before the point, without an exponent."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:.0f}"
    text = f"{value:#.3g}"
    return f"{value:.2g}" if "e" in text else text
