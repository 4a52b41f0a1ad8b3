"""docs/performance.md is what the last run of `make bench` measured, and pages quote only that."""

from __future__ import annotations

import re
from pathlib import Path

from bench import report, results
from bench.parts import NAMES

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", *sorted(ROOT.glob("*/*.md")))
    if path != report.PAGE
}
"""Text of each page that may quote a figure."""
QUOTE = re.compile(r"\[([^\]]*\d[^\]]*)\]\([^)\s]*performance\.md(?:#([\w-]*))?\)")
"""A link to the page whose text holds a figure: `[1.03](docs/performance.md#serving)`."""


SPEED = re.compile(r"\d\s*(?:images/s|GFLOP/s)")
OTHERS = {
    "docs/client.md": "what python -m bench.client_stream measures",
    "docs/commands.md": "an example of what is printed",
    "docs/operating.md": "what the real TensorFlow Serving answered, compiled from its source",
    "docs/scaling.md": "what python -m bench.scaling measures",
}
"""Pages with figures of speed that `make bench` does not measure, and where they come from."""


def unlinked_speeds(text: str) -> list[str]:
    """Figures of speed in `text` that are no quotes."""
    return SPEED.findall(re.sub(r"\[[^\]]*\]\([^)]*\)", "", text))


def wrong_quotes(text: str, page: str) -> list[str]:
    """Quotes in `text` with a number that the section of `page` that they link to does not have."""
    sections = {"": page}
    for section in page.split("\n## ")[1:]:
        sections[section.split("\n", 1)[0].lower()] = section
    wrong = []
    for quote, anchor in QUOTE.findall(text):
        numbers = set(re.findall(r"\d+(?:\.\d+)?", sections.get(anchor or "", "")))
        if not set(re.findall(r"\d+(?:\.\d+)?", quote)) <= numbers:
            wrong.append(quote)
    return wrong


def test_the_page_is_made_of_the_result_file():
    assert report.PAGE.read_text() == report.page(results.load(results.LATEST))


def test_pages_quote_only_figures_that_were_measured():
    page = report.PAGE.read_text()
    assert {name: wrong for name in PAGES if (wrong := wrong_quotes(PAGES[name], page))} == {}


def test_every_figure_of_speed_links_to_its_measurement():
    unlinked = {name: found for name in PAGES if (found := unlinked_speeds(PAGES[name]))}
    assert unlinked.keys() <= OTHERS.keys(), unlinked


def test_a_figure_of_speed_without_a_link_is_noticed():
    assert unlinked_speeds("It answers 15.2 images/s.") != []
    assert unlinked_speeds("It answers [15.2 images/s](performance.md#serving).") == []


def test_a_quote_of_another_figure_is_noticed():
    page = "# P\n\n## Serving\n\n| 16 in flight | 1.03 |\n\n## Network\n\n| 0.97 |\n"
    right = (
        "serves at [1.03](performance.md#serving), the network at [0.97](performance.md#network)"
    )
    assert wrong_quotes(right, page) == []
    assert wrong_quotes("[1.04](performance.md#serving)", page) == ["1.04"]
    assert wrong_quotes("[1.03](../docs/performance.md#network)", page) == ["1.03"]
    assert wrong_quotes("[2.0](performance.md#nowhere)", page) == ["2.0"]


def test_every_part_of_the_benchmarks_is_described():
    described = (ROOT / "bench" / "README.md").read_text()
    assert [name for name in NAMES if f"| `{name}` |" not in described] == []
