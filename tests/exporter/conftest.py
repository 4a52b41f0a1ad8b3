"""Tiny modules in every format, made once per run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.exporter.modules import write_tf1_hub_module, write_tf2_module
from tests.support.shared import once_for_all_workers


@pytest.fixture(scope="session")
def photos_jpeg(photos: list[Path]) -> list[bytes]:
    return [path.read_bytes() for path in photos]


@pytest.fixture(scope="session")
def tf1_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TF1 Hub module: 20x24 pixels, 6 floats. Rows depend on each other in its train variant."""

    def make(folder: Path) -> None:
        write_tf1_hub_module(folder / "module")

    return once_for_all_workers(tmp_path_factory, "tf1-hub", make) / "module"


@pytest.fixture(scope="session")
def tf2_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TF2 SavedModel without signatures, only `__call__`: 20x24 pixels, 6 floats."""

    def make(folder: Path) -> None:
        write_tf2_module(folder / "module")

    return once_for_all_workers(tmp_path_factory, "tf2", make) / "module"


@pytest.fixture(scope="session")
def tiny_version(tmp_path_factory: pytest.TempPathFactory, tf2_module: Path) -> Path:
    """`tf2_module`, exported: a version directory. All workers share it: copy it to change it."""
    from featurewire_exporter.commands import export

    def make(folder: Path) -> None:
        assert export([str(tf2_module), str(folder / "model")]) == 0

    return once_for_all_workers(tmp_path_factory, "tiny-version", make) / "model" / "1"


@pytest.fixture
def pixels() -> np.ndarray:
    """float32 [3, 20, 24, 3] in [0, 1]."""
    return np.random.default_rng(5).random([3, 20, 24, 3], dtype=np.float32)
