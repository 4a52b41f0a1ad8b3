"""Find the images in a folder."""

from __future__ import annotations

import os
from pathlib import Path

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp")
)
"""Suffixes of images, in lower case, for searches in folders. If a file is named on the command
line, its suffix does not matter."""


def find_images(folder: Path) -> list[Path]:
    """The images in a folder and its subfolders, sorted. Does not follow links to folders."""
    return sorted(
        Path(parent) / name
        for parent, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix.lower() in IMAGE_SUFFIXES
    )
