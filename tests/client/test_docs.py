"""The client's guide and its reference document every argument, method, error and counter."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import featurewire
from featurewire._wire.replies import STATUS_NAMES

DOCS = Path(__file__).resolve().parents[2] / "docs"

PAGE = (DOCS / "client.md").read_text()

REFERENCE = (DOCS / "client-reference.md").read_text()


def section(title: str) -> str:
    """The text under a heading, up to the next one of the same or a higher level."""
    match = re.search(rf"^(#+) {re.escape(title)}$(.*?)(?=^#{{1,2}} |\Z)", PAGE, re.M | re.S)
    assert match, title
    return match[2]


def test_every_error_and_reason_says_what_to_do():
    text = section("Errors")
    for name in featurewire.__all__:
        kind = getattr(featurewire, name)
        if isinstance(kind, type) and issubclass(kind, featurewire.FeaturewireError):
            assert f"`{name}`" in text, name
    for reason in [*STATUS_NAMES.values(), "rejected", "unknown", "not_finite", "unreadable"]:
        assert f"`{reason}`" in text, reason


def test_the_reference_has_every_argument_method_and_counter():
    for name in inspect.signature(featurewire.Client).parameters:
        assert re.search(rf"^\| `(\w+, )*{name}(, \w+)*` \|", REFERENCE, re.M), name
    for name, _ in inspect.getmembers(featurewire.Client, callable):
        if not name.startswith("_"):
            assert f"#### `{name}(" in REFERENCE, name
    for field in dataclasses.fields(featurewire.Stats):
        assert f"| `{field.name}` |" in REFERENCE, field.name


def test_the_guide_shows_every_argument_and_method():
    for name in inspect.signature(featurewire.Client).parameters:
        assert f"`{name}`" in PAGE or f"{name}=" in PAGE, name
    for name, _ in inspect.getmembers(featurewire.Client, callable):
        if not name.startswith("_"):
            assert f"`{name}(" in PAGE, name


def test_every_link_within_the_page_has_its_heading():
    headings = {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", PAGE, re.M)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= headings
