"""The project's English: no area gets worse, and some phrases never appear in messages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts import prose

ROOT = Path(__file__).resolve().parents[2]

MAX_MARKED_PERCENT = {
    "CHANGELOG.md": 2,
    "CONTRIBUTING.md": 2,
    "README.md": 2,
    "SECURITY.md": 2,
    "bench": 3,
    "client": 4,
    "deploy": 2,
    "docs": 3,
    "exporter": 3,
    "rollout": 4,
    "samples": 3,
    "scripts": 4,
    "server": 4,
    "serving_config": 2,
    "tests": 4,
}
"""Share of marked lines per folder or page. Lower a number when its area has improved."""

BANNED = {
    r"(?<!there )\b(is|are|was|were) no (?!longer\b|more than\b)": "is not a, has no",
    r"\bno such [\w ]+ as\b": "not a … such as",
    r"\bso (many|much|long|often|few|large|soon)\b(?! (that|as)\b)": "up to N, this many",
    r"\bat the (most|least)\b": "at most, at least",
    r"\bfor ever\b": "forever",
    r"\banew\b": "again",
    r"\bbefall": "happen to",
    r"\bhearsay\b": "second hand",
    r"\ball the same\b": "anyway",
    r"\bmeanwhile\b": "in the meantime",
    r"\bbesides?\b": "next to, in addition to",
    r"\bmend(s|ed)?\b": "fix",
    r", too\b": "also",
    r"\b(anyhow|astray|betake|foretells?|foretold|hardly|likewise|thereby|whither)\b": "(plainer)",
    r"\b(no|some)body\b": "name who",
    r"\bnames? nothing\b|\bsays? nothing\b": "does not name, does not say",
}
"""Phrases that error texts and `--help` must not contain, and replacements."""

DISTRIBUTIONS = ("client", "exporter", "rollout", "server")


def banned_phrases(text: str) -> list[str]:
    """Each banned phrase of a text, with its replacement."""
    found = ((re.search(phrase, text, re.IGNORECASE), better) for phrase, better in BANNED.items())
    return [f"{match[0].strip()!r} -> {better}" for match, better in found if match]


@pytest.mark.parametrize("area", [path.name for path in prose.areas()])
def test_the_share_of_marked_prose_does_not_rise(area):
    share = prose.measure(ROOT / area)
    assert area in MAX_MARKED_PERCENT, f"{area} is new: give it a number in MAX_MARKED_PERCENT"
    assert share.percent <= MAX_MARKED_PERCENT[area], (
        f"{area}: {share.percent:.1f} % of its prose is marked; "
        f"`python scripts/prose.py -v {area}` shows the lines"
    )


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_error_texts_and_help_hold_no_banned_phrase(distribution):
    files = [
        path
        for path in (ROOT / distribution).rglob("*.py")
        if not prose.SKIPPED_FOLDERS & set(path.parts)
    ]
    assert files
    faults = [
        f"{path.relative_to(ROOT)}:{line}: {phrase}: {text!r}"
        for path in files
        for line, text in prose.messages(path)
        for phrase in banned_phrases(text)
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("line", "marker"),
    [
        ("The file is no journal of this tool.", "negated noun"),
        ("Send at most so many images.", "so many"),
        ("What runs is not stopped.", "free what"),
        ("Those who wait are told.", "free who"),
        ("The version is to be loaded first.", "has to"),
        ("A new model beside the old one.", "dated word"),
        ("It also counts the padding, too.", "trailing too"),
        ('"""Of its time, as a share.', "fragment"),
        ("Write one row an image.", "a for per"),
    ],
)
def test_each_marker_marks_its_turn_of_phrase(line, marker):
    assert marker in prose.marks(line)


@pytest.mark.parametrize(
    "line",
    [
        "The label is no longer in use.",
        "Give so many that every batch is full.",
        "The text says what was wrong.",
        "Write one row per image.",
        '"""Number of images per batch.',
    ],
)
def test_plain_sentences_are_not_marked(line):
    assert prose.marks(line) == []


CODE = '''"""A docstring of the module."""
import logging

WAIT = 3.0
"""Seconds to wait."""


def fail(name):  # a comment
    logging.info("waited for the server to stop")
    text = "it is no text of a call"
    raise ValueError(
        f"{name} is no "
        f"folder of {text}"
    )
'''


def test_prose_is_docstrings_comments_and_messages(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(CODE)
    assert [number for number, _ in prose.prose(path)] == [1, 5, 8, 9, 12, 13]


def test_code_and_tables_of_figures_in_a_page_are_not_prose(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("A line of prose.\n\n```\nis no prose in here\n```\n| 1.0 | 2.0 | 3.0 |\n")
    assert list(prose.prose(path)) == [(1, "A line of prose.")]


def test_messages_are_whole_texts_with_their_values_left_out(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(CODE)
    assert dict(prose.messages(path)) == {
        9: "waited for the server to stop",
        10: "it is no text of a call",
        12: "{} is no folder of {}",
    }
    assert banned_phrases("{} is no folder of {}") == ["'is no' -> is not a, has no"]
