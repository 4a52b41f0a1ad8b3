"""The generated pages have the latest figures of `make bench`, and other pages quote only those."""

from __future__ import annotations

import re
from pathlib import Path

from bench import report, results, summary
from bench.parts import NAMES

ROOT = Path(__file__).resolve().parents[2]
MEASUREMENTS = ROOT / "docs" / "measurements.md"
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", *sorted(ROOT.glob("*/*.md")))
    if path.name not in ("measurements.md", "performance.md")
}
"""Text of each page that may quote a figure."""
QUOTE = re.compile(r"\[([^\]]*\d[^\]]*)\]\([^)\s]*measurements\.md(?:#([\w-]*))?\)")
"""A link to the page with a figure as its text: `[1.03](docs/measurements.md#serving)`."""


SPEED = re.compile(r"\d\s*(?:images/s|GFLOP/s)")
OTHERS = {
    "docs/client.md": "what python -m bench.client_stream measures",
    "docs/commands.md": "an example of what is printed",
    "docs/operating.md": "what the real TensorFlow Serving answered, compiled from its source",
    "docs/scaling.md": "what python -m bench.scaling measures",
}
"""Pages with figures of speed that `make bench` does not measure, and their sources."""


def unlinked_speeds(text: str) -> list[str]:
    """Figures of speed in `text` without a link."""
    return SPEED.findall(re.sub(r"\[[^\]]*\]\([^)]*\)", "", text))


def wrong_quotes(text: str, page: str) -> list[str]:
    """Quotes in `text` whose number is not in the linked section of `page`."""
    sections = {"": page}
    for section in page.split("\n## ")[1:]:
        sections[section.split("\n", 1)[0].lower()] = section
    wrong = []
    for quote, anchor in QUOTE.findall(text):
        numbers = set(re.findall(r"\d+(?:\.\d+)?", sections.get(anchor or "", "")))
        if not set(re.findall(r"\d+(?:\.\d+)?", quote)) <= numbers:
            wrong.append(quote)
    return wrong


def test_the_pages_are_made_from_the_result_file():
    parts = results.load(results.LATEST)
    assert MEASUREMENTS.read_text() == report.page(parts)
    assert (ROOT / "docs" / "performance.md").read_text() == summary.page(parts)


def test_pages_quote_only_figures_that_were_measured():
    page = MEASUREMENTS.read_text()
    assert {name: wrong for name in PAGES if (wrong := wrong_quotes(PAGES[name], page))} == {}


def test_every_figure_of_speed_links_to_its_measurement():
    unlinked = {name: found for name in PAGES if (found := unlinked_speeds(PAGES[name]))}
    assert unlinked.keys() <= OTHERS.keys(), unlinked


def test_a_figure_of_speed_without_a_link_is_noticed():
    assert unlinked_speeds("It answers 15.2 images/s.") != []
    assert unlinked_speeds("It answers [15.2 images/s](measurements.md#serving).") == []


def test_a_quote_of_another_figure_is_noticed():
    page = "# P\n\n## Serving\n\n| 16 in flight | 1.03 |\n\n## Network\n\n| 0.97 |\n"
    right = (
        "serves at [1.03](measurements.md#serving), the network at [0.97](measurements.md#network)"
    )
    assert wrong_quotes(right, page) == []
    assert wrong_quotes("[1.04](measurements.md#serving)", page) == ["1.04"]
    assert wrong_quotes("[1.03](../docs/measurements.md#network)", page) == ["1.03"]
    assert wrong_quotes("[2.0](measurements.md#nowhere)", page) == ["2.0"]


def test_every_part_of_the_benchmarks_is_described():
    described = (ROOT / "bench" / "README.md").read_text()
    assert [name for name in NAMES if f"| `{name}` |" not in described] == []
