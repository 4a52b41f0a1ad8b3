"""Pictures of a folder, and crops of them: more views to learn from, and queries to test with."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from featurewire_exporter.errors import ExportError

EXTENSIONS = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib"))
AREA = (0.4, 1.0)
"""The least and the most of a picture's area that a crop keeps."""
_QUALITY = 95


def find_pictures(folder: Path) -> list[bytes]:
    """The encoded pictures below `folder`, each content once, by name. Raises `ExportError`."""
    if not folder.is_dir():
        raise ExportError(f"{folder} is no folder; give one with pictures such as your index holds")
    paths = sorted(
        Path(root) / name
        for root, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix.lower() in EXTENSIONS
    )
    found: dict[bytes, bytes] = {}
    for path in paths:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ExportError(f"{path} cannot be read ({error.strerror})") from error
        found.setdefault(hashlib.sha256(data).digest(), data)
    return list(found.values())


def views(picture: bytes, count: int) -> Iterator[bytes]:
    """The picture itself and `count - 1` crops of it as JPEGs, the same for the same bytes.

    Nothing at all where it does not decode.
    """
    try:
        pixels = tf.io.decode_image(picture, channels=3, expand_animations=False).numpy()
    except tf.errors.OpError:
        return
    yield picture
    random = np.random.default_rng(list(hashlib.sha256(picture).digest()))
    height, width = pixels.shape[:2]
    for _ in range(count - 1):
        side = np.sqrt(random.uniform(*AREA))
        rows, columns = max(1, round(height * side)), max(1, round(width * side))
        top, left = random.integers(height - rows + 1), random.integers(width - columns + 1)
        crop = pixels[top : top + rows, left : left + columns]
        yield tf.io.encode_jpeg(crop, quality=_QUALITY).numpy()
