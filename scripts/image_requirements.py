"""What a distribution needs from the package index, for the Dockerfile: its sources left out.

    image_requirements.py server[openvino] rollout

prints the dependencies in `server/pyproject.toml` (with those of the extra) and
`rollout/pyproject.toml`, but not the distributions of this repository.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def requirements(folder: Path, extras: list[str]) -> set[str]:
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    found = set(project["dependencies"])
    for extra in extras:
        found.update(project["optional-dependencies"][extra])
    return {each for each in found if not each.startswith("featurewire")}


def main(arguments: list[str]) -> None:
    found: set[str] = set()
    for argument in arguments:
        folder, *extras = re.findall(r"[\w-]+", argument)
        found |= requirements(Path(folder), extras)
    print("\n".join(sorted(found)))


if __name__ == "__main__":
    main(sys.argv[1:])
