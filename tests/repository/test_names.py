"""A test's name is a sentence short enough to read at a glance."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
MAX_CHARACTERS = 60
"""Maximum length of a name after `test_`, so that it fits on a line with `FAILED` and the file."""


def test_a_tests_name_has_at_most_60_characters():
    long_names = [
        f"{path.relative_to(TESTS)}: {node.name}"
        for path in sorted(TESTS.rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and len(node.name.removeprefix("test_")) > MAX_CHARACTERS
    ]
    assert not long_names
