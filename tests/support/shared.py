"""What all workers of a test run share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def folder_of_the_run(factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that all workers of the run share."""
    base = factory.getbasetemp()
    # Each xdist worker has a folder of its own inside the run's.
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def once_for_all_workers(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Path:
    """`make(folder)` in the first test process that asks; the others wait for it."""
    shared = folder_of_the_run(factory)
    folder = shared / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            making = shared / f"{name}.making"
            making.mkdir()
            make(making)
            making.rename(folder)
    return folder
