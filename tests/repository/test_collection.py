"""Tests that need no heavy library do not wait for one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
ABOUT_TENSORFLOW = {"exporter", "server"}
"""Folders whose tests run TensorFlow in their own process."""

PLUGIN = """
import sys

def pytest_collection_finish(session):
    heavy = {"keras", "nncf", "openvino", "tensorflow"}.intersection(sys.modules)
    print(f"{len(session.items)} tests, imported: {sorted(heavy)}")
"""


@pytest.mark.slow
def test_other_folders_are_collected_without_tensorflow(tmp_path: Path) -> None:
    (tmp_path / "what_is_imported.py").write_text(PLUGIN)
    others = {TESTS / path.relative_to(TESTS).parts[0] for path in TESTS.glob("*/**/test_*.py")}
    others -= {TESTS / name for name in ABOUT_TENSORFLOW}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "what_is_imported"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", *map(str, sorted(others))],
        cwd=TESTS.parent,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "tests, imported: []\n" in done.stdout
