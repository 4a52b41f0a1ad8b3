"""Sync files to disk, and list the folders of a model's versions."""

from __future__ import annotations

import os
from pathlib import Path

_VERSION_LIMIT = 1 << 63
"""TensorFlow Serving's versions are int64."""


def sync(path: Path) -> None:
    """Write a file's contents, or a folder's entries, through to the disk. Raises `OSError`.

    A new file survives a power failure only if its folder is also synced.
    """
    if path.is_dir() and os.name != "posix":  # only POSIX systems can open a folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def version_folders(base_path: Path) -> dict[int, Path]:
    """The folders of a model's versions, by number, with TensorFlow Serving's rules for names.

    Leading zeros are allowed; of two names for the same number, the shorter one wins. Raises
    `OSError`.
    """
    found: dict[int, Path] = {}
    with os.scandir(base_path) as entries:
        for entry in sorted(entries, key=lambda entry: (-len(entry.name), entry.name)):
            name = entry.name
            if name.isascii() and name.isdigit() and len(name) < 100 and entry.is_dir():
                number = int(name)
                if number < _VERSION_LIMIT:
                    found[number] = Path(entry.path)
    return found
