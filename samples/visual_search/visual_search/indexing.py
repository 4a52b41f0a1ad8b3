"""Turns a folder of photos into rows of the index; existing rows are not embedded again."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import featurewire
from visual_search.index import IndexProblem, PhotoIndex, Row, SpaceTable

__all__ = ["Progress", "Space", "index_photos", "space_of"]

SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".bmp"}
ROWS_PER_WRITE = 64
SECONDS_PER_WRITE = 2.0
PASSING = {"unreadable", "unknown"}
"""Temporary failures: such photos are not stored, so that the next run tries them again."""


@dataclass
class Progress:
    """Progress of a run, in photos."""

    found: int = 0
    done: int = 0
    """Embedded or refused, including earlier runs."""
    new: int = 0
    """Embedded in this run."""
    failed: int = 0
    """Refused in this run."""
    running: bool = False
    trouble: str | None = None
    """Why the run has stopped, in one line."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """The version that answers, and its vector space."""

    vector_space: str
    version: int
    dimension: int
    stand_in: bool
    bridged: tuple[str, ...] = ()
    """Other spaces that the version serves through bridges."""


@dataclass(frozen=True)
class Photo:
    path: str
    size: int
    modified: int


async def space_of(client: featurewire.AsyncClient, *, timeout: float = 10.0) -> Space:
    """The vector space of the version that answers `client`."""
    metadata = await client.metadata(timeout=timeout)
    manifest = metadata.manifest
    if manifest is None:
        raise IndexProblem(
            f"version {metadata.version} has no manifest, so its vector space is unknown: make it "
            "with `featurewire export`"
        )
    return Space(
        vector_space=manifest["vector_space"],
        version=metadata.version,
        dimension=manifest["dimension"],
        stand_in=bool(manifest["module"].get("stand_in")),
        bridged=tuple(
            each["vector_space"]
            for each in manifest.get("vector_spaces", [])
            if each.get("bridged")
        ),
    )


async def index_photos(
    photos: Path, index: PhotoIndex, client: featurewire.AsyncClient, progress: Progress
) -> SpaceTable:
    """Embed the photos that the table of the server's space lacks, and remove deleted ones.

    Rows are written every few seconds, so the next run continues an interrupted one. `client` must
    not set `vector_space`, and should pin the version of a stream.
    """
    with index.writing():
        progress.running = True
        try:
            return await _index(photos, index, client, progress)
        finally:
            progress.running = False


async def _index(
    photos: Path, index: PhotoIndex, client: featurewire.AsyncClient, progress: Progress
) -> SpaceTable:
    found = await asyncio.to_thread(find_photos, photos)
    if not found:
        raise IndexProblem(f"no photos in {photos}: name a folder with JPEG, PNG, GIF or BMP files")
    space = await space_of(client)
    table = index.table_for(space.vector_space, dimension=space.dimension, stand_in=space.stand_in)
    seen = await asyncio.to_thread(table.seen)
    await asyncio.to_thread(table.remove, seen.keys() - {photo.path for photo in found})
    missing = [photo for photo in found if seen.get(photo.path) != (photo.size, photo.modified)]
    progress.found, progress.done = len(found), len(found) - len(missing)
    progress.new, progress.failed, progress.trouble = 0, 0, None

    # This client raises an error instead of returning a vector of another space.
    same_space = client.with_options(vector_space=space.vector_space)
    rows: list[Row] = []
    written = time.monotonic()
    try:
        async for row, passing in _embedded(photos, missing, same_space):
            progress.done += 1
            if row.reason is None:
                progress.new += 1
            else:
                progress.failed += 1
            if not passing:
                rows.append(row)
            if len(rows) >= ROWS_PER_WRITE or time.monotonic() - written > SECONDS_PER_WRITE:
                await asyncio.to_thread(table.write, rows)
                rows, written = [], time.monotonic()
    finally:
        if rows:
            table.write(rows)
    if missing:
        await asyncio.to_thread(table.compact)
    return table


async def _embedded(
    photos: Path, missing: list[Photo], client: featurewire.AsyncClient
) -> AsyncIterator[tuple[Row, bool]]:
    """A row for each photo, and whether its failure is temporary."""
    async for result in client.stream((photo, photos / photo.path) for photo in missing):
        photo = result.key
        good = result.embedding
        row = Row(
            path=photo.path,
            size=photo.size,
            modified=photo.modified,
            vector=None if good is None else good.vector,
            reason=None if result.error is None else result.error.reason,
            version=0 if good is None else good.version,
        )
        yield row, row.reason in PASSING


def find_photos(folder: Path) -> list[Photo]:
    """Photos below a folder, by name, without hidden files and unprintable names."""
    found = []
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in sorted(names):
            path = Path(base, name)
            if name.startswith(".") or path.suffix.lower() not in SUFFIXES or not path.is_file():
                continue
            relative = path.relative_to(folder).as_posix()
            if relative.isprintable():
                facts = path.stat()
                found.append(Photo(relative, facts.st_size, facts.st_mtime_ns))
    return found
