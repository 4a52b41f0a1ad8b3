"""Code for systems that the tests do not run on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EVERYWHERE = ("client/featurewire", "server/featurewire_server")
POSIX = (*EVERYWHERE, "exporter/featurewire_exporter", "rollout/featurewire_rollout")


@pytest.mark.slow
@pytest.mark.parametrize(("platform", "packages"), [("win32", EVERYWHERE), ("darwin", POSIX)])
def test_types_hold_for_other_systems(platform, packages, tmp_path):
    """A function that the system lacks is an error unless the code asks which system it is."""
    command = [sys.executable, "-m", "mypy", "--platform", platform, "--cache-dir", str(tmp_path)]
    done = subprocess.run([*command, *packages], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
