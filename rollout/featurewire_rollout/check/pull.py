"""Ask both versions for the vectors of the same images."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import featurewire
from featurewire import FeaturewireError, ImageError
from featurewire.plugin import IMAGE_EXTENSIONS
from featurewire_rollout.check import crops
from featurewire_rollout.check.pairs import Pairs, Side

__all__ = ["CheckError", "Source", "find_images", "pull"]

UNTIMED = 3
"""Requests to each version before the clock counts: connections open, caches fill."""

Progress = Callable[[int, int], None]


class CheckError(FeaturewireError):
    """The check cannot be made; the text says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A client that is pinned to one version or label, and what reports call it."""

    client: featurewire.Client
    name: str


def find_images(directory: Path) -> list[Path]:
    """The image files of a directory and of those in it, by name. Raises `CheckError`."""
    if not directory.is_dir():
        raise CheckError(f"--images {directory}: not a directory")
    found = [
        Path(folder) / name
        for folder, _, names in os.walk(directory)
        for name in names
        if Path(name).suffix.lower() in IMAGE_EXTENSIONS
    ]
    if not found:
        raise CheckError(f"--images {directory}: no images in it")
    return sorted(found)


def pull(
    stable: Source,
    canary: Source,
    images: Sequence[Path],
    *,
    limit: int,
    seed: int,
    with_crops: bool = True,
    progress: Progress | None = None,
) -> Pairs:
    """Send each image to both versions, one request at a time, and a crop of each image.

    The versions take turns in who is asked first, so that their latencies compare. Of more than
    `limit` images, a sample is drawn with `seed`. Raises `CheckError` when a version changes on
    the way, other `FeaturewireError`s when a call fails.
    """
    chosen, duplicates, left_out = _choose(images, limit=limit, seed=seed)
    base = Path(os.path.commonpath([path.parent for path, _ in chosen]))
    names = tuple(str(path.relative_to(base)) for path, _ in chosen)
    sides = [_Asking(stable), _Asking(canary)]
    for _ in range(UNTIMED):
        for side in sides:
            side.ask(chosen[0][1])
    make_crops = with_crops and crops.available()
    for row, (_, data) in enumerate(chosen):
        order = sides if row % 2 == 0 else sides[::-1]
        for side in order:
            side.add(row, data)
        if make_crops:
            part = crops.crop(data, seed=seed, turned=row % 2 == 1)
            for side in order:
                side.add_crop(part)
        if progress is not None:
            progress(row + 1, len(chosen))
    return Pairs(
        model=sides[0].model,
        names=names,
        stable=sides[0].side(make_crops),
        canary=sides[1].side(make_crops),
        files=tuple(path for path, _ in chosen),
        duplicates=duplicates,
        left_out=left_out,
    )


def _choose(
    images: Sequence[Path], *, limit: int, seed: int
) -> tuple[list[tuple[Path, bytes]], int, int]:
    """The images to send with their bytes, each content once; how many were left out, and why."""
    drawn = list(images)
    random.Random(seed).shuffle(drawn)
    chosen: list[tuple[Path, bytes]] = []
    seen: set[bytes] = set()
    duplicates = 0
    for position, path in enumerate(drawn):
        if len(chosen) == limit:
            return chosen, duplicates, len(drawn) - position
        try:
            data = path.read_bytes()
        except OSError as exc:
            raise CheckError(f"{path}: {exc.strerror or exc}") from exc
        digest = hashlib.sha256(data).digest()
        if digest in seen:
            duplicates += 1
        else:
            seen.add(digest)
            chosen.append((path, data))
    return chosen, duplicates, 0


class _Asking:
    """One version: asks for vectors and keeps what comes back."""

    def __init__(self, source: Source) -> None:
        self._source = source
        metadata = source.client.metadata()
        self.version, self.model = metadata.version, metadata.model
        self._manifest = metadata.manifest
        self._vectors: list[np.ndarray | None] = []
        self._crops: list[np.ndarray | None] = []
        self._latencies: list[float] = []
        self._errors: dict[int, str] = {}

    def ask(self, image: bytes) -> np.ndarray | ImageError:
        try:
            embedding = self._source.client.embed(image)
        except ImageError as error:
            return error
        if embedding.version != self.version:
            raise CheckError(
                f"{self._source.name} moved from version {self.version} to {embedding.version} "
                "during the check; run it again when nothing else changes the labels"
            )
        return np.asarray(embedding.vector, np.float64)

    def add(self, row: int, image: bytes) -> None:
        start = time.perf_counter()
        found = self.ask(image)
        self._latencies.append(time.perf_counter() - start)
        vector = None
        if isinstance(found, ImageError):
            self._errors[row] = found.reason
        elif np.isfinite(found).all():
            vector = found
        else:
            self._errors[row] = "not finite"
        self._vectors.append(vector)

    def add_crop(self, image: bytes | None) -> None:
        found = None if image is None else self.ask(image)
        self._crops.append(None if isinstance(found, ImageError) else found)

    def side(self, with_crops: bool) -> Side:
        dimension = max((len(each) for each in self._vectors if each is not None), default=1)
        return Side(
            name=self._source.name,
            version=self.version,
            vectors=_rows(self._vectors, dimension),
            latencies=np.array(self._latencies),
            errors=self._errors,
            crops=_rows(self._crops, dimension) if with_crops else None,
            manifest=self._manifest,
        )


def _rows(vectors: Iterable[np.ndarray | None], dimension: int) -> np.ndarray:
    nothing = np.full(dimension, np.nan)
    return np.array([nothing if each is None else each for each in vectors])
