"""Get the vectors of the same images from both versions."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import featurewire
from featurewire import FeaturewireError, ImageError
from featurewire.manifest.spaces import vector_space
from featurewire.plugin.images import find_images
from featurewire_rollout.check import crops
from featurewire_rollout.check.config import CheckConfig
from featurewire_rollout.check.pairs import Pairs, Side
from featurewire_rollout.decide.view import retention_by_space

UNTIMED_REQUESTS = 3
"""Requests to each version before the timed ones, to open connections and fill caches."""

Progress = Callable[[int, int], None]


class CheckError(FeaturewireError):
    """The check is impossible. The text gives the reason and the fix."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A client pinned to one version or label, and its name in reports."""

    client: featurewire.Client
    name: str


def images_in(directory: Path) -> list[Path]:
    """The image files of a directory and its subdirectories, sorted. Raises `CheckError`."""
    if not directory.is_dir():
        raise CheckError(f"--images {directory}: not a directory")
    found = find_images(directory)
    if not found:
        raise CheckError(f"--images {directory}: no images in it")
    return found


def pull(
    stable: Source,
    canary: Source,
    images: Sequence[Path],
    config: CheckConfig,
    *,
    progress: Progress | None = None,
) -> Pairs:
    """Send each image, and a crop of each, to both versions, one request at a time.

    If canary has a bridge to stable's space, each image also goes through the bridge. The versions
    take turns to receive an image first, so that their latencies compare. Raises
    `CheckError` if a version changes during the check or bridged vectors have another dimension,
    and other `FeaturewireError`s if a call fails.
    """
    chosen, duplicates, left_out = _choose(images, limit=config.max_images, seed=config.seed)
    base = Path(os.path.commonpath([path.parent for path, _ in chosen]))
    names = tuple(str(path.relative_to(base)) for path, _ in chosen)
    sides = [_Asking(stable), _Asking(canary)]
    bridge = _bridge(sides[1].manifest, sides[0].manifest, canary)
    for _ in range(UNTIMED_REQUESTS):
        for side in sides:
            side.ask(chosen[0][1])
    make_crops = config.crops and crops.available()
    for row, (_, data) in enumerate(chosen):
        order = sides if row % 2 == 0 else sides[::-1]
        order = [*order, *([] if bridge is None else [bridge])]
        for side in order:
            side.add(row, data)
        if make_crops:
            part = crops.crop(data, seed=config.seed, turned=row % 2 == 1)
            for side in order:
                side.add_crop(part)
        if progress is not None:
            progress(row + 1, len(chosen))
    answered = [each.side(make_crops) for each in sides]
    return Pairs(
        model=sides[0].model,
        names=names,
        stable=answered[0],
        canary=answered[1],
        bridged=None if bridge is None else _same_dimension(bridge.side(make_crops), answered[0]),
        files=tuple(path for path, _ in chosen),
        duplicates=duplicates,
        left_out=left_out,
    )


def _bridge(
    canary: dict[str, Any] | None, stable: dict[str, Any] | None, source: Source
) -> _Asking | None:
    """Canary through its bridge to stable's space; None without such a bridge."""
    space = vector_space(stable)
    if space is None or space not in retention_by_space(canary):
        return None
    return _Asking(
        Source(
            client=source.client.with_options(vector_space=space), name=f"{source.name}'s bridge"
        )
    )


def _same_dimension(bridged: Side, stable: Side) -> Side:
    found, wanted = bridged.vectors.shape[1], stable.vectors.shape[1]
    if found != wanted and len(bridged.errors) < len(bridged.vectors):
        raise CheckError(
            f"{bridged.name} gives vectors of {found} floats, but stable's space has {wanted}; "
            f"export version {bridged.version} again"
        )
    return bridged


def _choose(
    images: Sequence[Path], *, limit: int, seed: int
) -> tuple[list[tuple[Path, bytes]], int, int]:
    """The images to send with their bytes, the number of duplicates and that beyond `limit`."""
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
        except OSError as error:
            raise CheckError(f"{path}: {error.strerror or error}") from error
        digest = hashlib.sha256(data).digest()
        if digest in seen:
            duplicates += 1
        else:
            seen.add(digest)
            chosen.append((path, data))
    return chosen, duplicates, 0


class _Asking:
    """Requests the vectors of one version and collects them."""

    def __init__(self, source: Source) -> None:
        self._source = source
        metadata = source.client.metadata()
        self.version, self.model = metadata.version, metadata.model
        self.manifest = metadata.manifest
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
                "during the check; run the check again while nothing else changes the labels"
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
            manifest=self.manifest,
        )


def _rows(vectors: Iterable[np.ndarray | None], dimension: int) -> np.ndarray:
    nothing = np.full(dimension, np.nan)
    return np.array([nothing if each is None else each for each in vectors])
