"""The client works with the oldest and the newest versions of its requirements."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMOKE = Path(__file__).with_name("smoke.py")


def declared() -> dict[str, str]:
    text = (ROOT / "client" / "pyproject.toml").read_text()
    block = re.search(r"^dependencies = \[(.*?)\]", text, re.DOTALL | re.MULTILINE)[1]
    return dict(re.findall(r'"([a-z]+)>=([\d.]+)[,"]', block))


def run_smoke(python: Path) -> dict[str, str]:
    done = subprocess.run([python, SMOKE], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    ok, grpcio, protobuf, numpy = done.stdout.split()
    assert ok == "ok"
    return {"grpcio": grpcio, "protobuf": protobuf, "numpy": numpy}


def test_the_client_depends_on_three_packages():
    assert declared().keys() == {"grpcio", "protobuf", "numpy"}


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="no wheels of the oldest NumPy")
def test_the_oldest_declared_versions_work(tmp_path):
    """The wheel is also complete and installs alone."""
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", tmp_path], check=True, timeout=120
    )
    python = tmp_path / "bin" / "python"
    oldest = tmp_path / "oldest.txt"
    oldest.write_text("".join(f"{name}=={ver}.0\n" for name, ver in declared().items()))
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--no-compile"]
        + ["--quiet", "--disable-pip-version-check"]
        + ["--constraint", oldest, str(ROOT / "client")],
        check=True,
        timeout=240,
    )
    assert run_smoke(python) == {name: f"{ver}.0" for name, ver in declared().items()}
    listed = subprocess.run(
        [python, "-c", "import featurewire, pathlib; "
         "print(sorted(p.name for p in pathlib.Path(featurewire.__file__).parent.iterdir()))"],
        capture_output=True, text=True, check=True, timeout=60, cwd=tmp_path,
    ).stdout  # fmt: skip
    assert "py.typed" in listed
    assert "_tfs" in listed


def test_the_newest_versions_work():
    run_smoke(Path(sys.executable))
