"""The project's environment, for tests that run in the samples' environment.

The samples' packages conflict with the project's, so their tests run in a separate environment
(`make test-samples`), and the servers in the project's, as on another machine.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.support import warm

ROOT = Path(__file__).resolve().parents[2]


def project_python() -> str:
    """An interpreter that has the exporter and the server."""
    project = ROOT / ".venv" / "bin" / "python"
    return str(project) if project.exists() else sys.executable


def in_project(*arguments: str, timeout: float = 250.0) -> None:
    """Run the project's Python; its output is shown if it fails."""
    done = warm.run(
        arguments,
        python=project_python(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
