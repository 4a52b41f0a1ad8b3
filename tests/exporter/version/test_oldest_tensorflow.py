"""A published version gives the same vectors in the oldest TensorFlow that it supports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from featurewire_exporter import photos
from featurewire_exporter.commands import export
from featurewire_exporter.preprocess import MIN_TENSORFLOW
from featurewire_exporter.version.artifact import ArtifactSession

SCRIPT = Path(__file__).with_name("oldest_tensorflow.py")
SPACES = f"{__package__}.oldest_spaces"
ROOT = Path(__file__).resolve().parents[3]
OLDEST = MIN_TENSORFLOW[False]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def oldest_python(tmp_path_factory) -> str:
    """An interpreter with TensorFlow `OLDEST` and the exporter's requirements, from the index.

    `FEATUREWIRE_OLDEST_PYTHON` gives an existing one.
    """
    if given := os.environ.get("FEATUREWIRE_OLDEST_PYTHON"):
        return given
    if sys.version_info >= (3, 13):
        pytest.skip(f"TensorFlow {OLDEST} has no wheels for Python {sys.version.split()[0]}")
    environment = tmp_path_factory.mktemp("oldest")
    venv.create(environment, with_pip=True)
    python = str(environment / "bin" / "python")
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted = f"tensorflow-cpu=={OLDEST}.*"
    installed = subprocess.run([*command, wanted], capture_output=True, text=True, timeout=500)
    if installed.returncode != 0:
        last = (installed.stderr.strip().splitlines() or ["pip failed"])[-1]
        pytest.skip(f"TensorFlow {OLDEST} cannot be installed here: {last}")
    return python


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    return [photos.jpeg(300, 400, seed=1), b"", b"text", photos.jpeg(40, 30, seed=2)]


def run_oldest(python: str, version: Path, images: list[bytes], tmp_path: Path):
    for i, image in enumerate(images):
        (tmp_path / str(i)).write_bytes(image)
    return subprocess.run(
        [python, str(SCRIPT), str(version), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
    )


def assert_same(python: str, version: Path, images: list[bytes], tmp_path: Path) -> None:
    done = run_oldest(python, version, images, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    with ArtifactSession(version) as session:
        ours = session.run("serving_default", image_bytes=np.array(images, dtype=object))

    assert result["tensorflow"].startswith(f"{OLDEST}.")
    statuses, features = zip(*result["rows"], strict=True)
    assert list(statuses) == ours["status"].tolist() == [0, 1, 2, 0]
    np.testing.assert_allclose(np.array(features), ours["features"], atol=1e-3)


def test_a_version_runs_in_the_oldest_tensorflow(oldest_python, tiny_version, images, tmp_path):
    assert_same(oldest_python, tiny_version, images, tmp_path)


def test_the_full_network_runs_in_the_oldest_tensorflow(oldest_python, published, images, tmp_path):
    assert_same(oldest_python, published / "1", images, tmp_path)


def test_a_version_with_webp_needs_a_newer_tensorflow_and_says_so(
    oldest_python, tf2_module, images, tmp_path
):
    assert export([str(tf2_module), str(tmp_path / "m"), "--webp"]) == 0
    version = tmp_path / "m" / "1"
    manifest = json.loads((version / "assets.extra" / "featurewire.json").read_text())
    (tmp_path / "images").mkdir()

    assert manifest["min_serving_version"] == MIN_TENSORFLOW[True] != OLDEST
    done = run_oldest(oldest_python, version, images, tmp_path / "images")
    assert done.returncode != 0
    assert "WebP" in done.stderr


def spaces(python: str, scratch: Path, *modules: Path) -> dict:
    """The output of `oldest_spaces` in this interpreter."""
    scratch.mkdir()
    done = subprocess.run(
        [python, "-m", SPACES, str(scratch), *map(str, modules)],
        capture_output=True,
        text=True,
        timeout=500,
        env={
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "CUDA_VISIBLE_DEVICES": "-1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "exporter")]),
        },
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_oldest_tensorflow_gives_modules_the_same_spaces(
    oldest_python, tf1_module, tf2_module, stand_in_module, learned_module, tmp_path
):
    modules = [tf1_module, tf2_module, stand_in_module, learned_module]
    theirs = spaces(oldest_python, tmp_path / "theirs", *modules)
    ours = spaces(sys.executable, tmp_path / "ours", *modules)

    assert theirs["tensorflow"].startswith(f"{OLDEST}.")
    assert ours["tensorflow"] != theirs["tensorflow"]
    assert theirs["spaces"] == ours["spaces"]
    assert len(set(ours["spaces"].values())) == len(modules)
    # The same code writes the same module in every TensorFlow.
    assert theirs["written"] == ours["written"]
    assert ours["written"]["tf2"] == ours["written"]["signed"] == ours["spaces"][str(tf2_module)]
