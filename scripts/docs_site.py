"""Hooks of mkdocs, which builds docs/ as a site (run by `make docs`).

The pages are written for the repository: their index is a page, and they link to files outside
docs/. For the site, the index becomes the navigation, and such links lead to the repository.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def navigation(index: str) -> list[Any]:
    """mkdocs' nav: a section for each heading of the index, with the pages of its tables."""
    nav: list[Any] = [{"Documentation": "README.md"}]
    seen = {"README.md"}
    for section in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        pages = [page for page in re.findall(r"\]\(([\w-]+\.md)\)", section) if page not in seen]
        seen.update(pages)
        if pages:
            nav.append({title: pages})
    return nav


def repository() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return str(project["tool"]["featurewire"]["urls"]["Source"])


def on_config(config: Any) -> Any:
    config["nav"] = navigation((ROOT / "docs" / "README.md").read_text())
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links out of docs/ lead to the repository; a link to a file that is not there is an error."""

    def outside(link: re.Match[str]) -> str:
        path = link[1].partition("#")[0]
        if not (ROOT / path).exists():
            raise FileNotFoundError(f"a page links to {path}, which does not exist")
        return f"]({repository()}/blob/main/{link[1]})"

    return re.sub(r"\]\(\.\./([^)\s]*)\)", outside, markdown)
