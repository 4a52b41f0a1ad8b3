"""A test's name is a sentence that is read at a glance."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
MAX_CHARACTERS = 60
"""Length of a name after `test_`: with `FAILED` and the file it still fits on a line."""


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
