"""Measure how much of the project's prose still reads like a translation.

    python scripts/prose.py                  # one line per folder and page
    python scripts/prose.py -v docs          # also the marked lines

Prose means docstrings, comments, texts in calls and `raise` statements, and Markdown. A line is
marked if one of the `MARKERS` matches. A mark is a hint, not an error: in well-written projects
1 to 2 % of the lines have one.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

SKIPPED_FOLDERS = {"_tfs", "node_modules", "__pycache__", "build", "dist"}
"""Generated code, and what builds leave in the tree."""

MIN_PAGE_CHARACTERS = 16
"""Shorter lines of a page are headings and ends of sentences."""

MIN_CODE_CHARACTERS = 9
"""Shorter lines of a docstring or a comment are quotes and single words."""

MIN_SPACES = 3
"""Strings in calls with fewer spaces are names and keys."""

_THINGS = (
    "call|channel|class|host|image|key|kind|layer|line|model|module|path|queue|request|result|role"
    "|row|second|series|size|step|version"
)
_COUNTED = "a|an|count|entry|fact|folder|line|one|result|role|row|second|task|the|vector"

MARKERS: dict[str, str] = {
    # Say "is not a folder", "has no folder", "without".
    "negated noun": (
        r"\b(are|has|have|hold|holds|is|knows|names|says|was|were) (no(?! longer)|none|nothing)\b"
    ),
    # Say "up to N", "N at a time", "this many".
    "so many": (
        r"\bso (far|few|large|late|long|many|much|often|old|slow|soon|sure|wide)\b"
        r"(?! (as|that)\b)"
    ),
    # Name the thing. After a verb ("say what failed") it is fine.
    "free what": (
        r"(?<![?\w] )\bwhat (a|an|callers|came|comes|does|follows|goes|had|has|is|it|others|runs"
        r"|such|the|then|they|this|waits|was)\b"
    ),
    "free who": r"\b(nobody|one (that|who)|somebody|those (that|who|whose)|who(ever)?)\b",
    "has to": (
        r"\b(are|had|has|have|is|was|were) to (be|come|end|go|have|know|look|make|stay|take|wait)\b"
    ),
    "dated word": (
        r"\b(all the same|anew|anyhow|astray|at the least|at the most|befall|behind|beside|besides"
        r"|betake|bids?|by itself|dear|dearer|dearest|for ever|foretells|foretold|gives? way|hardly"
        r"|likewise|meanwhile|mend|mended|mends|of its own|rather than|thereby|told|whither)\b"
    ),
    "trailing too": r", too\b",
    # Begin with a verb, or with the noun that is returned.
    "fragment": (
        r'^("""|# |#: )?(As|Beside|By|For|From|In|Of|Until|Where|Whose|With) [^.]*[.,]?("""|$)'
    ),
    # Say "one row per image".
    "a for per": rf"\b({_COUNTED}) (\w+ )?\w+ an? ({_THINGS})\b",
}
_CASED = {"fragment", "a for per", "dated word"}
_PATTERNS = {
    name: re.compile(pattern, 0 if name in _CASED else re.IGNORECASE)
    for name, pattern in MARKERS.items()
}


@dataclass
class Share:
    """The prose of a folder: its lines, and how many of them are marked."""

    lines: int
    marked: list[str]
    """`path:line: [markers] text` of each marked line."""
    markers: Counter[str]

    @property
    def percent(self) -> float:
        return 100 * len(self.marked) / max(1, self.lines)


def areas(root: Path = ROOT) -> list[Path]:
    """The top-level folders and pages that hold prose."""
    found = [
        each
        for each in root.iterdir()
        if each.suffix == ".md"
        or (each.is_dir() and not each.name.startswith(".") and each.name not in SKIPPED_FOLDERS)
    ]
    return sorted(each for each in found if next(_files(each), None) is not None)


def measure(area: Path, root: Path = ROOT) -> Share:
    """The share of marked lines in a file, or in all files of a folder."""
    share = Share(0, [], Counter())
    for path in _files(area):
        name = path.relative_to(root) if path.is_relative_to(root) else path
        for number, line in prose(path):
            share.lines += 1
            found = marks(line)
            if found:
                share.marked.append(f"{name}:{number}: [{', '.join(found)}] {line}")
                share.markers.update(found)
    return share


def marks(line: str) -> list[str]:
    """Names of the markers found in a line of prose."""
    return [name for name, pattern in _PATTERNS.items() if pattern.search(line)]


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers and lines of prose in a Python file or a Markdown page."""
    text = path.read_text(encoding="utf-8")
    return _page(text) if path.suffix == ".md" else _code(text)


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """Line number and text of every string of three words or more that is not a docstring.

    That includes the texts of errors and of `--help`, even if a table or another function supplies
    them. Implicitly joined strings are one text; `{}` stands for each inserted value.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = {id(each.value) for each in ast.walk(tree) if isinstance(each, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts.update(id(value) for value in node.values)
    for node in ast.walk(tree):
        text = "" if id(node) in parts else _text(node)
        if text.count(" ") >= 2:
            yield getattr(node, "lineno", 0), text


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(value) or "{}" for value in node.values)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ""


def _files(area: Path) -> Iterator[Path]:
    if area.is_file():
        yield area
        return
    for path in sorted(area.rglob("*")):
        parts = path.relative_to(area).parts
        hidden = any(part in SKIPPED_FOLDERS or part.startswith(".") for part in parts)
        generated = path.name.endswith("_pb2.py")
        if path.suffix in (".py", ".md") and not hidden and not generated:
            yield path


def _page(text: str) -> Iterator[tuple[int, str]]:
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            fenced = not fenced
        figures = re.fullmatch(r"\|[\s\d.|:-]*", line)
        if not fenced and not figures and len(line) >= MIN_PAGE_CHARACTERS:
            yield number, line


def _code(text: str) -> Iterator[tuple[int, str]]:
    numbers: set[int] = set()
    waiting: list[tuple[ast.AST, bool]] = [(ast.parse(text), False)]
    while waiting:
        node, in_call = waiting.pop()
        in_call = in_call or isinstance(node, (ast.Raise, ast.Call))
        if isinstance(node, ast.Expr) and _text(node.value):
            numbers.update(_lines(node.value))
        elif in_call and isinstance(node, ast.Constant) and _text(node).count(" ") >= MIN_SPACES:
            numbers.update(_lines(node))
        waiting.extend((child, in_call) for child in ast.iter_child_nodes(node))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    numbers.update(token.start[0] for token in tokens if token.type == tokenize.COMMENT)
    lines = text.splitlines()
    for number in sorted(numbers):
        line = lines[number - 1].strip()
        if len(line) >= MIN_CODE_CHARACTERS:
            yield number, line


def _lines(node: ast.expr) -> Iterable[int]:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how the project's prose reads.")
    parser.add_argument("paths", nargs="*", type=Path, help="default: every folder and page")
    parser.add_argument("-v", "--verbose", action="store_true", help="also show the marked lines")
    options = parser.parse_args()
    for area in options.paths or areas():
        share = measure(area.resolve())
        if options.verbose:
            print(*share.marked, sep="\n")
        by_marker = ", ".join(f"{name} {count}" for name, count in share.markers.most_common())
        name = area.relative_to(ROOT) if area.is_relative_to(ROOT) else area
        print(
            f"{name!s:<16} {share.lines:5} lines {len(share.marked):5} marked "
            f"{share.percent:5.1f} %  {by_marker}"
        )


if __name__ == "__main__":
    main()
