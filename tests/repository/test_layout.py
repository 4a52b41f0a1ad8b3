"""The layout of the tree matches the README and the contract."""

from __future__ import annotations

import ast
import graphlib
import os
import re
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTIONS = {
    "client": "featurewire",
    "exporter": "featurewire-exporter",
    "server": "featurewire-server",
    "rollout": "featurewire-rollout",
}

PRIVATE = r"featurewire(\._(?!tfs\b)| import _)\w+"
"""Private modules of the client, except its messages."""


def project(folder: str) -> dict:
    return tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [ROOT / line for line in listed.stdout.splitlines()]
    return [path for path in paths if path.is_file()]


@pytest.mark.parametrize(("folder", "name"), DISTRIBUTIONS.items())
def test_each_folder_is_the_distribution_of_the_contract(folder, name):
    assert project(folder)["name"] == name
    assert (ROOT / folder / name.replace("-", "_") / "__init__.py").is_file()


@pytest.mark.parametrize(("folder", "name"), DISTRIBUTIONS.items())
def test_each_distribution_declares_that_it_is_typed(folder, name):
    assert (ROOT / folder / name.replace("-", "_") / "py.typed").is_file()


def test_all_distributions_have_the_newest_version_of_the_changelog():
    versions = {project(folder)["version"] for folder in DISTRIBUTIONS}
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert versions == {newest[1]}
    for folder in ("exporter", "server", "rollout"):
        assert f"featurewire=={newest[1]}" in project(folder)["dependencies"]


def test_the_client_depends_on_nothing_but_grpcio_protobuf_and_numpy():
    names = {re.split(r"[<>=!~]", each)[0].strip() for each in project("client")["dependencies"]}
    assert names == {"grpcio", "protobuf", "numpy"}


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("client", r"tensorflow|featurewire_(exporter|server|rollout)"),
        ("exporter", rf"featurewire_(server|rollout)|{PRIVATE}"),
        ("server", rf"featurewire_(exporter|rollout)|{PRIVATE}"),
        ("rollout", rf"tensorflow|featurewire_(exporter|server)|{PRIVATE}"),
    ],
)
def test_imports_run_one_way(folder, forbidden):
    pattern = re.compile(rf"^\s*(from|import) ({forbidden})\b", re.MULTILINE)
    offenders = [
        str(path.relative_to(ROOT))
        for path in (ROOT / folder).rglob("*.py")
        if pattern.search(path.read_text())
    ]
    assert offenders == []


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", each.lower()).strip().replace(" ", "-") for each in found}


def test_links_between_the_pages_lead_somewhere():
    broken = []
    for page in (path for path in tracked_files() if path.suffix == ".md"):
        for link, _, anchor in re.findall(r"\]\(([^)#\s]*)(#([^)]*))?\)", page.read_text()):
            target = page.parent / link if link else page
            known = "://" in link or target.exists()
            if known and anchor and target.suffix == ".md":
                known = anchor in headings(target)
            if not known:
                broken.append(f"{page.relative_to(ROOT)}: {link}#{anchor}")
    assert broken == []


def test_no_file_names_a_machine_of_its_makers():
    pattern = re.compile(
        "|".join(["/wo" + "rk/", "/ro" + "ot/", "/opt/" + "pypi", "pypi" + r"\.org"])
    )
    texts = {path: path.read_bytes().decode(errors="ignore") for path in tracked_files()}
    assert [str(path) for path, text in texts.items() if pattern.search(text)] == []


def test_ci_runs_the_tests_and_the_linters():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    parts = [line.removeprefix("part ") for line in script.read_text().splitlines()]
    assert (
        parts.index("make lint")
        < parts.index("make test")
        < parts.index("make test-all AFTER=test")
    )


LAYERS = {
    "client": [
        "top",
        "_cli",
        "plugin",
        "_client",
        "_async_client",
        "_core",
        "_stream",
        "_model",
        "_flow",
        "_rpc",
        "_wire",
        "_config",
        "_embedding",
        "_images",
        "_errors",
        "_advice",
        "manifest",
        "_tfs",
        "",
    ],
    "exporter": [
        "top",
        "cli",
        "export",
        "verify",
        "inspect",
        "config",
        "bridge",
        "int8",
        "quality",
        "version",
        "graph",
        "preprocess",
        "source",
        "progress",
        "photos",
        "locks",
        "errors",
        "_tfs",
    ],
    "rollout": ["top", "cli", "steps", "fleet", "store", "check", "decide", "config", "errors"],
    "server": [
        "top",
        "transport",
        "api",
        "models",
        "batching",
        "messages",
        "engines",
        "preprocess",
        "common",
        "_tfs",
    ],
}
"""Folders and modules of a distribution, the highest first. Everything else is at the top. The
empty name is that of its catalogue, `__init__`."""


def imports(folder: str) -> dict[str, set[str]]:
    """What each module of a distribution imports of it, for types as well: dotted, without the
    package's name. A catalogue that imports its names when they are first used imports none."""
    package = ROOT / folder / DISTRIBUTIONS[folder].replace("-", "_")
    modules = {
        ".".join(path.relative_to(package).with_suffix("").parts).removesuffix("__init__"): path
        for path in package.rglob("*.py")
    }
    paths = {module.rstrip("."): path for module, path in modules.items()}
    graph: dict[str, set[str]] = {module: set() for module in paths}
    for module, path in paths.items():
        tree = ast.parse(path.read_text())
        is_lazy = any(getattr(node, "name", None) == "__getattr__" for node in tree.body)
        for node in () if is_lazy else ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            root, _, base = node.module.partition(".")
            for alias in node.names if root == package.name else ():
                inner = f"{base}.{alias.name}".lstrip(".")
                graph[module].add(inner if inner in paths else base)
        graph[module].discard(module)
    return graph


def circle(graph: Mapping[str, set[str]]) -> str:
    """Names along a circle of the graph, if there is one."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return " -> ".join(error.args[1])
    return ""


@pytest.mark.parametrize("folder", LAYERS)
def test_a_folder_imports_only_from_those_below(folder):
    layers = LAYERS[folder]

    def rank(module: str) -> int:
        first = module.split(".")[0]
        return layers.index(first) if first in layers else 0

    arrows = [(a, b) for a, imported in imports(folder).items() for b in imported]
    assert [f"{a} -> {b}" for a, b in arrows if rank(a) > rank(b)] == []


@pytest.mark.parametrize("folder", ["client", "exporter", "rollout", "server"])
def test_no_modules_import_each_other_in_a_circle(folder):
    assert circle(imports(folder)) == ""


@pytest.mark.parametrize("folder", ["client", "exporter", "rollout", "server"])
def test_no_rooms_import_each_other_in_a_circle(folder):
    rooms: dict[str, set[str]] = {}
    for module, imported in imports(folder).items():
        room = module.split(".")[0]
        rooms.setdefault(room, set()).update({each.split(".")[0] for each in imported} - {room})
    assert circle(rooms) == ""
