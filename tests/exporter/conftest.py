"""Tiny modules in every format, made quickly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.exporter.modules import write_tf1_hub_module, write_tf2_module


@pytest.fixture(scope="session")
def tf1_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TF1 Hub module: 20x24 pixels, 6 floats. Rows depend on each other in its train variant."""
    return write_tf1_hub_module(tmp_path_factory.mktemp("tf1_hub") / "module")


@pytest.fixture(scope="session")
def tf2_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TF2 SavedModel without signatures, only `__call__`: 20x24 pixels, 6 floats."""
    return write_tf2_module(tmp_path_factory.mktemp("tf2") / "module")


@pytest.fixture(scope="session")
def tiny_version(tmp_path_factory: pytest.TempPathFactory, tf2_module: Path) -> Path:
    """`tf2_module`, exported: a version directory."""
    from featurewire_exporter.commands import export

    base = tmp_path_factory.mktemp("tiny_version") / "model"
    assert export([str(tf2_module), str(base)]) == 0
    return base / "1"


@pytest.fixture
def pixels() -> np.ndarray:
    """float32 [3, 20, 24, 3] in [0, 1]."""
    return np.random.default_rng(5).random([3, 20, 24, 3], dtype=np.float32)
