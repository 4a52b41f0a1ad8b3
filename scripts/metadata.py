"""Write what the distributions share, their version first of all, into their files.

    python scripts/metadata.py            # run by `make metadata`
    python scripts/metadata.py --check    # exit status 1 if a file is out of date

The source is `[tool.featurewire]` in the repository's pyproject.toml. Static fields, because every
tool can read them; LICENSE is copied, because a source distribution holds only its own folder.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

FOLDERS = ("client", "exporter", "rollout", "server")

START = "# Shared by all distributions. Written by `make metadata`."
END = "# End of what is shared."


def shared_fields(settings: dict[str, Any]) -> str:
    """Lines of the `[project]` table of each distribution."""
    lines = [START]
    for field in ("version", "license", "requires-python"):
        lines.append(f"{field} = {json.dumps(settings[field])}")
    lines.append('license-files = ["LICENSE"]')
    authors = ", ".join(f"{{ name = {json.dumps(each['name'])} }}" for each in settings["authors"])
    lines.append(f"authors = [{authors}]")
    lines.append(f"keywords = {json.dumps(settings['keywords'])}")
    lines += ["classifiers = [", *(f"    {json.dumps(each)}," for each in settings["classifiers"])]
    lines.append("]")
    lines += [f"urls.{name} = {json.dumps(url)}" for name, url in settings["urls"].items()]
    return "\n".join([*lines, END])


def project_file(text: str, settings: dict[str, Any]) -> str:
    """A distribution's pyproject.toml with the shared fields and the version of its siblings."""
    block = re.compile(f"{re.escape(START)}.*?{re.escape(END)}", re.DOTALL)
    text = block.sub(lambda _: shared_fields(settings), text)
    return re.sub(r'"featurewire==[^"]*"', f'"featurewire=={settings["version"]}"', text)


def updated(settings: dict[str, Any]) -> dict[Path, str]:
    """Each file that holds something shared, with the text that it should have."""
    files = {}
    for folder in FOLDERS:
        project = ROOT / folder / "pyproject.toml"
        files[project] = project_file(project.read_text(), settings)
        files[ROOT / folder / "LICENSE"] = (ROOT / "LICENSE").read_text()
        for package in (ROOT / folder).glob("featurewire*/__init__.py"):
            version = f'__version__ = "{settings["version"]}"'
            text = package.read_text()
            files[package] = re.sub(r'^__version__ = ".*"$', version, text, flags=re.MULTILINE)
    return files


def main(arguments: Sequence[str]) -> int:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["featurewire"]
    stale = [
        (path, text)
        for path, text in updated(settings).items()
        if not path.exists() or path.read_text() != text
    ]
    if "--check" in arguments:
        for path, _ in stale:
            print(f"{path.relative_to(ROOT)} is out of date: run `make metadata`", file=sys.stderr)
        return 1 if stale else 0
    for path, text in stale:
        path.write_text(text)
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
