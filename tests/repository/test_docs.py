"""Options, public names, statuses and alerts are documented."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from scripts import client_reference
from tests.support.usage import help_of, options_in, steps_in

ROOT = Path(__file__).resolve().parents[2]

COMMAND_PAGES = [
    ("featurewire_exporter.cli.export", "export_parser", "docs/exporter.md"),
    ("featurewire_exporter.cli.inspect", "inspect_parser", "docs/exporter.md"),
    ("featurewire_exporter.cli.verify", "verify_parser", "docs/exporter.md"),
    ("featurewire._cli.embed", "embed_parser", "docs/commands.md"),
    ("featurewire._cli.status", "status_parser", "docs/commands.md"),
    ("featurewire_server.command", "serve_parser", "docs/server.md"),
    ("featurewire_rollout.command", "rollout_parser", "docs/rollouts.md"),
]


def options_of(parser) -> set[str]:
    """Long options of a command and its subcommands."""
    text = help_of(parser)
    return options_in(text).union(*(options_in(help_of(parser, step)) for step in steps_in(text)))


@pytest.mark.parametrize(("module", "parser", "page"), COMMAND_PAGES)
def test_every_option_is_documented(module, parser, page):
    options = options_of(getattr(importlib.import_module(module), parser)())
    text = (ROOT / page).read_text()
    missing = [each for each in options if not re.search(rf"{re.escape(each)}(?![\w-])", text)]
    assert options
    assert sorted(missing) == []


def test_the_reference_of_the_client_is_what_its_docstrings_say():
    text = (ROOT / "docs" / "client-reference.md").read_text()
    assert text == client_reference.page(), "run python scripts/client_reference.py"


def test_every_image_status_is_documented():
    from featurewire_exporter.preprocess import STATUS

    text = (ROOT / "docs" / "preprocessing.md").read_text()
    assert len(STATUS) == 5
    assert [name for name in STATUS.values() if f"`{name}`" not in text] == []


def test_the_docs_index_names_every_page():
    index = (ROOT / "docs" / "README.md").read_text()
    pages = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    assert [page for page in pages if page != "README.md" and f"({page})" not in index] == []


def test_the_operating_guide_says_what_to_do_for_every_alarm():
    rules = (ROOT / "serving_config" / "prometheus" / "alerts.yml").read_text()
    alerts = re.findall(r"- alert: (\w+)", rules)
    text = (ROOT / "docs" / "operating.md").read_text()
    assert alerts
    assert [alert for alert in alerts if f"| `{alert}` |" not in text] == []


@pytest.mark.parametrize(
    ("page", "package", "name"),
    [
        ("client/README.md", "client/featurewire", r"`((?:_\w+|manifest|plugin)(?:/\w+)?)/?`"),
        (
            "server/README.md",
            "server/featurewire_server",
            r"(?<!/)\b((?:transport|models|batching|messages|engines|common)/\w+)",
        ),
    ],
    ids=["client", "server"],
)
def test_every_file_that_a_readme_explains_exists(page, package, name):
    named = set(re.findall(name, (ROOT / page).read_text()))
    folder = ROOT / package
    known = {
        each for each in named if (folder / each).is_dir() or (folder / f"{each}.py").is_file()
    }
    assert len(known) > 10
    assert sorted(named - known) == []
