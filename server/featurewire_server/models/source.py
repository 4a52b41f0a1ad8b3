"""Finds the versions of a model in the file system."""

from __future__ import annotations

import os
from pathlib import Path


def list_versions(base_path: str) -> dict[int, Path]:
    """Version number to directory: the sub-directories of `base_path` whose name is a number.

    Leading zeros are allowed; of two names of one number the shorter counts. Raises OSError
    when `base_path` cannot be read.
    """
    found: dict[int, Path] = {}
    with os.scandir(base_path) as entries:
        for entry in sorted(entries, key=lambda entry: (-len(entry.name), entry.name)):
            name = entry.name
            if name.isascii() and name.isdigit() and int(name) < 1 << 63 and entry.is_dir():
                found[int(name)] = Path(entry.path)
    return found
