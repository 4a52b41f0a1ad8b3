"""Write docs/client-reference.md from the docstrings of the client's public names.

python scripts/client_reference.py            # write the page
python scripts/client_reference.py --check    # exit with 1 if the page is out of date
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import featurewire

PAGE = Path(__file__).resolve().parents[1] / "docs" / "client-reference.md"

WIDTH = 100

MIB = 1 << 20

HEAD = """<!-- `python scripts/client_reference.py` writes this from the docstrings in client/. -->
# Python client: reference

For developers who look up a name of `featurewire`. [client.md](client.md) is the guide: it explains
the calls, the errors and the recipes. All times are in seconds.
"""

GROUPS = {
    "Clients": ("Client", "AsyncClient"),
    "Settings": ("RetryConfig", "StreamConfig", "TLSConfig", "ChannelConfig"),
    "Results": ("Embedding", "EmbeddingBatch", "Result", "StreamProgress", "Stats"),
    "Models": ("ModelStatus", "VersionStatus", "ModelMetadata", "Signature", "TensorSpec"),
    "Errors": (
        "FeaturewireError",
        "ConfigError",
        "ImageError",
        "ModelNotFoundError",
        "ServerUnavailableError",
        "OverloadedError",
        "DeadlineExceededError",
        "InvalidRequestError",
        "ResponseError",
        "VectorSpaceError",
        "ServerError",
    ),
}
"""Sections of the page, with their names in order."""


def page() -> str:
    """The whole page as Markdown. Raises ValueError if a public name is in no group."""
    grouped = {name for names in GROUPS.values() for name in names}
    if missing := set(featurewire.__all__) - grouped - {"__version__"}:
        raise ValueError(f"add to GROUPS: {', '.join(sorted(missing))}")
    parts = [HEAD]
    for title, names in GROUPS.items():
        parts.append(f"## {title}\n")
        for name in names:
            parts.extend(_entry(name, getattr(featurewire, name)))
    return "\n".join(parts)


def _entry(name: str, thing: Any) -> Iterator[str]:
    yield f"### `{name}`\n"
    if not inspect.isclass(thing):  # a union: show what its members have in common
        yield "Either of two classes, which type checkers narrow on `error`.\n"
        thing = thing.__args__[0].__origin__
        yield _fields(thing)
        return
    if issubclass(thing, featurewire.FeaturewireError):
        bases = [each.__name__ for each in thing.__bases__ if each is not object]
        yield f"Base classes: {', '.join(f'`{each}`' for each in bases)}.\n"
    elif not dataclasses.is_dataclass(thing):
        call = textwrap.fill(_call(name, thing.__init__), WIDTH, subsequent_indent="    ")
        yield f"```python\n{call}\n```\n"
    text = inspect.getdoc(thing) or ""
    if not text.startswith(f"{name}("):  # what a dataclass without a docstring gets
        yield _prose(text)
    if fields := _fields(thing):
        yield fields
    for title, function in _methods(thing):
        yield f"#### `{title}`\n"
        yield _prose(inspect.getdoc(function) or "")


def _methods(thing: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Documented public methods, with their call, and properties, with their name.

    Settings have none, and `AsyncClient` only the ones that `Client` lacks.
    """
    if thing.__name__.endswith("Config"):
        return
    for base in reversed(thing.__mro__):
        for name, member in vars(base).items():
            function = member.fget if isinstance(member, property) else member
            known = thing is featurewire.AsyncClient and hasattr(featurewire.Client, name)
            public = base.__module__.startswith("featurewire") and not name.startswith("_")
            if public and not known and inspect.isfunction(function) and inspect.getdoc(function):
                yield (name if function is not member else _call(name, function)), function


def _call(name: str, function: Callable[..., Any]) -> str:
    """The call of a function, without types: `embed(image, *, timeout)`."""
    shown, keyword = [], False
    for each in list(inspect.signature(function).parameters.values())[1:]:
        if each.kind is each.KEYWORD_ONLY and not keyword:
            keyword = True
            shown.append("*")
        default = each.default
        if default is each.empty or type(default).__name__ == "Unset":
            shown.append(each.name)
        elif dataclasses.is_dataclass(default):
            shown.append(f"{each.name}={type(default).__name__}()")
        else:
            shown.append(f"{each.name}={default!r}")
    return f"{name}({', '.join(shown)})"


def _fields(thing: type) -> str:
    """The table of a class's documented attributes, or nothing."""
    fields = dataclasses.fields(thing) if dataclasses.is_dataclass(thing) else ()
    defaults = {each.name: _default(each) for each in fields}
    rows = []
    for name, text in _attributes(thing):
        if name.startswith("_"):
            continue
        rows.append(f"| `{name}` | {defaults.get(name, '')} | {_inline(text)} |\n")
    head = "| name | default | meaning |\n|---|---|---|\n"
    return head + "".join(rows) if rows else ""


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if value is dataclasses.MISSING:
        return ""
    if isinstance(value, int) and value >= MIB and not value % MIB:
        return f"{value // MIB} MiB"
    return f"`{value!r}`"


def _attributes(thing: type) -> Iterator[tuple[str, str]]:
    """Attributes of a class and their docstrings, which may be empty."""
    body = ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]
    assert isinstance(body, ast.ClassDef)
    for at, node in enumerate(body.body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            after = body.body[at + 1] if at + 1 < len(body.body) else None
            text = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                text = str(after.value.value)
            yield node.target.id, text


def _inline(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _prose(text: str) -> str:
    """A docstring as Markdown: its arguments become a table, and its lines are wrapped."""
    before, _, after = text.partition("\nArgs:\n")
    arguments, _, rest = after.partition("\n\n")
    parts = [_wrapped(before)]
    if arguments:
        pairs = re.findall(r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE)
        rows = "".join(f"| `{name}` | {_inline(about)} |\n" for name, about in pairs)
        parts += [f"| argument | meaning |\n|---|---|\n{rows}", _wrapped(rest)]
    return "\n".join(part for part in parts if part.strip())


def _wrapped(text: str) -> str:
    paragraphs = []
    for paragraph in text.strip().split("\n\n"):
        if paragraph.startswith("    "):
            paragraphs.append(f"```python\n{textwrap.dedent(paragraph)}\n```\n")
        else:
            paragraphs.append(textwrap.fill(_inline(paragraph), WIDTH) + "\n")
    return "\n".join(paragraphs)


def main(arguments: list[str]) -> int:
    wanted = page()
    if arguments == ["--check"]:
        if PAGE.read_text() != wanted:
            print(f"{PAGE.name} is out of date: run python scripts/client_reference.py")
            return 1
        return 0
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
