"""`python -m bench.parts NAME FILE [quick]`: one part's figures into a file, for the harness."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

from bench.results import as_json

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    name, file, *quick = sys.argv[1:]
    figures = importlib.import_module(f"bench.parts.{name}").measure(bool(quick))
    Path(file).write_text(json.dumps(as_json(figures)))
