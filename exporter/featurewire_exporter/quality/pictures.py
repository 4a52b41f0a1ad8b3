"""Finds the pictures of a folder, and makes crops of them to learn from and to test with."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import tensorflow as tf

from featurewire.plugin.images import find_images
from featurewire_exporter.errors import ExportError

AREA = (0.4, 1.0)
"""Minimum and maximum fraction of a picture's area that a crop keeps."""
_QUALITY = 95


class Pictures(Sequence[bytes]):
    """Encoded pictures that are read from their files when they are needed."""

    def __init__(self, files: Sequence[tuple[Path, bytes]]) -> None:
        """`files`: paths, and the SHA-256 of what they hold."""
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, row: int) -> bytes: ...

    @overload
    def __getitem__(self, row: slice) -> Pictures: ...

    def __getitem__(self, row: int | slice) -> bytes | Pictures:
        """Raises `ExportError` for a file that is gone or has changed."""
        if isinstance(row, slice):
            return Pictures(self._files[row])
        path, digest = self._files[row]
        data = _read(path)
        if hashlib.sha256(data).digest() != digest:
            raise ExportError(f"{path} changed during the export; export again")
        return data


def find_pictures(folder: Path, limit: int = 2000, *, seed: int = 0, option: str) -> Pictures:
    """The pictures below `folder`, by name, each content once; if more than `limit`, a random part.

    `option`: the option that named the folder, for errors. Raises `ExportError`.
    """
    if not folder.is_dir():
        raise ExportError(
            f"{folder} is not a folder; give {option} one with pictures such as your index holds"
        )
    paths = find_images(folder)
    if len(paths) > limit:
        random.Random(seed).shuffle(paths)
    found: dict[bytes, Path] = {}
    for path in paths:
        if len(found) == limit:
            break
        found.setdefault(hashlib.sha256(_read(path)).digest(), path)
    return Pictures(sorted((path, digest) for digest, path in found.items()))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ExportError(f"{path} cannot be read ({error.strerror})") from error


def views(picture: bytes, count: int) -> Iterator[bytes]:
    """The picture itself and `count - 1` crops of it as JPEGs, the same for the same bytes.

    Yields nothing if the picture does not decode.
    """
    try:
        pixels = tf.io.decode_image(picture, channels=3, expand_animations=False).numpy()
    except tf.errors.OpError:
        return
    yield picture
    drawn = np.random.default_rng(list(hashlib.sha256(picture).digest()))
    height, width = pixels.shape[:2]
    for _ in range(count - 1):
        side = np.sqrt(drawn.uniform(*AREA))
        rows, columns = max(1, round(height * side)), max(1, round(width * side))
        top, left = drawn.integers(height - rows + 1), drawn.integers(width - columns + 1)
        crop = pixels[top : top + rows, left : left + columns]
        yield tf.io.encode_jpeg(crop, quality=_QUALITY).numpy()
