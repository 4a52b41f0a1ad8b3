"""Which files of a folder are images."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["IMAGE_SUFFIXES", "find_images"]

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp")
)
"""In lower case. A command takes any file that is named by itself, whatever its suffix."""


def find_images(folder: Path) -> list[Path]:
    """The images in a folder and in the folders below it, sorted. Links to folders are left out."""
    return sorted(
        Path(parent) / name
        for parent, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix.lower() in IMAGE_SUFFIXES
    )
