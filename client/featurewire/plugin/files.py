"""Files that must survive a crash, and folders that are named by a number."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["sync", "version_folders"]

_VERSION_LIMIT = 1 << 63
"""TensorFlow Serving's versions are int64."""


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk. Raises `OSError`.

    A new name survives a loss of power only when its folder is on the disk, too.
    """
    if path.is_dir() and os.name != "posix":  # no other system opens a folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def version_folders(base_path: Path) -> dict[int, Path]:
    """The folders of a model's versions, by number, as TensorFlow Serving reads their names.

    Zeros may come first. Of two names of one number the shorter one counts. Raises `OSError`.
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
