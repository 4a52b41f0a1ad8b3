"""`python -m bench.parts NAME FILE`: measure one part and write its figures to a file."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from bench.results import as_json


def figures_of(name: str, *, quick: bool) -> list[dict[str, Any]]:
    return as_json(importlib.import_module(f"bench.parts.{name}").measure(quick))


if __name__ == "__main__":
    name, file = sys.argv[1:]
    Path(file).write_text(json.dumps(figures_of(name, quick=False)))
