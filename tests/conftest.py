"""What is expensive and shared by all tests: made once a session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    """The repository's sample photos: real JPEGs."""
    return sorted((ROOT / "samples" / "photos").glob("*.jpg"))


def once_for_all_workers(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Path:
    """`make(folder)` in the first test process that asks; the others wait for it."""
    base = factory.getbasetemp()
    # Each xdist worker has a folder of its own inside the run's.
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            making = shared / f"{name}.making"
            making.mkdir()
            make(making)
            making.rename(folder)
    return folder


@pytest.fixture(scope="session")
def stand_in_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in itself: a module directory in TF1 Hub format."""
    code = "import sys; from featurewire_exporter.stand_in import write_stand_in as write"

    def make(folder: Path) -> None:
        subprocess.run(
            [sys.executable, "-c", f"{code}; from pathlib import Path; write(Path(sys.argv[1]))"]
            + [str(folder / "module")],
            check=True,
            timeout=120,
        )

    return once_for_all_workers(tmp_path_factory, "stand-in-module", make) / "module"


@pytest.fixture(scope="session")
def learned_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EfficientNet-Lite0: 224x224 pixels to 1280 floats that mean something."""
    return _learned(tmp_path_factory, "lite0")


@pytest.fixture(scope="session")
def other_learned_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EfficientNet-Lite1: 240x240 pixels to 1280 floats of another vector space."""
    return _learned(tmp_path_factory, "lite1")


def _learned(factory: pytest.TempPathFactory, name: str) -> Path:
    from tests.support.learned import write_learned_module

    return (
        once_for_all_workers(
            factory, name, lambda folder: write_learned_module(folder / "module", name)
        )
        / "module"
    )


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The full-size stand-in, exported: a base path with version 1 in it."""

    def make(folder: Path) -> None:
        subprocess.run(
            [sys.executable, "-m", "featurewire_exporter", "export", "stand-in"]
            + [str(folder / "inception_resnet_v2")],
            check=True,
            capture_output=True,
            text=True,
            timeout=280,
        )

    return once_for_all_workers(tmp_path_factory, "published", make) / "inception_resnet_v2"


@pytest.fixture(scope="session")
def published_manifest(published: Path) -> dict:
    return json.loads((published / "1" / "assets.extra" / "featurewire.json").read_text())


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base path with versions 1 and 2 of a tiny model (see tests/support/models.py)."""
    from tests.support.models import write_tiny_model

    base_path = tmp_path_factory.mktemp("tiny")
    for version in (1, 2):
        write_tiny_model(base_path, version)
    return base_path
