"""Re-embed an index in the vector space of a new version, and switch searches to it.

    python reindex.py lance:photos.lance --images ~/Pictures --server localhost:8500 --model m

Until then searches and writers use the old space, searches through the new version's bridge.
After a kill at any moment, run the same command again and it continues.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import numpy as np

import featurewire
from tables import Index, WrongSpaceError

__all__ = ["ReindexError", "add", "find", "open_index", "reindex", "space_of"]

ROWS_PER_WRITE = 64
LAST = 64
"""Maximum number of missing rows to embed while writers wait, just before the switch."""
PROBED = 32
"""Number of rows of the new table to embed again and search for in it."""
SAME = 0.999
"""Minimum cosine between an image's row and the same image embedded again."""


class ReindexError(Exception):
    """A problem for the user to fix, in one line."""


def open_index(name: str) -> Index:
    """Open the index named `lance:FOLDER` or `faiss:FOLDER`."""
    kind, _, folder = name.partition(":")
    if kind == "lance" and folder:
        from lance_index import LanceIndex

        return LanceIndex(Path(folder))
    if kind == "faiss" and folder:
        from faiss_index import FaissIndex

        return FaissIndex(Path(folder))
    raise ReindexError(f"{name!r} is not an index: give lance:FOLDER or faiss:FOLDER")


def space_of(client: featurewire.Client) -> str:
    """The vector space of the version that answers `client`."""
    metadata = client.metadata()
    if metadata.manifest is None:
        raise ReindexError(f"version {metadata.version} has no manifest, so its space is unknown")
    return str(metadata.manifest["vector_space"])


def find(
    index: Index, client: featurewire.Client, image: bytes, count: int = 10
) -> list[tuple[str, float]]:
    """Search: names and cosines. Works before, during and after a change of the model."""
    space = index.current()
    if space is None:
        return []
    query = client.with_options(vector_space=space).embed(image)
    return index.search(space, query.vector, count)


def add(
    index: Index, client: featurewire.Client, images: Path, names: Sequence[str]
) -> dict[int, featurewire.ImageError]:
    """Add files below `images`; returns the errors of those without a vector, by position."""
    while True:
        space = index.current() or space_of(client)
        batch = _embed_rows(client, space, [images / name for name in names])
        good = [row for row in range(len(names)) if row not in batch.errors]
        try:
            if good:
                index.add(space, [names[row] for row in good], batch.vectors[good])
            return batch.errors
        except WrongSpaceError:  # searches have switched since `current`
            continue


def _embed_rows(
    client: featurewire.Client, space: str, images: Sequence[Path]
) -> featurewire.EmbeddingBatch:
    """Embed images with a version of the space itself, or else through the bridge.

    The previous version is loaded until `rollout retire`. Bridged queries are closer to bridged
    rows than to native ones, so in a table with both they find the bridged rows too often.
    """
    client = client.with_options(vector_space=space)
    with suppress(featurewire.ModelNotFoundError, featurewire.VectorSpaceError):
        batch = client.with_options(label="previous").embed_batch(images)
        if not batch.bridged:
            return batch
    return client.embed_batch(images)


def reindex(
    index: Index,
    client: featurewire.Client,
    images: Path,
    *,
    max_refused: int = 0,
    say: Callable[[str], None] = print,
) -> None:
    """Fill a table in `client`'s space, check it, and switch searches to it.

    `images`: the folder to which the rows' names are relative. `max_refused`: maximum number of
    rows to leave out because their image no longer gives a vector. Raises `ReindexError`.
    """
    old, new = index.current(), space_of(client)
    if old is None:
        raise ReindexError(f"{index.folder} has no rows to embed again")
    if old == new:
        say(f"searches already read {new}")
        return
    client = client.with_options(vector_space=new)
    while True:
        refused = _fill(index, client, images, (old, new), index.writing, max_refused, say)
        with index.writing():
            if len(_missing(index, old, new)) - len(refused) > LAST:
                continue
            refused = _fill(index, client, images, (old, new), nullcontext, max_refused, say)
            _check(index, client, images, (old, new), refused)
            index.switch(new)
            break
    say(f"searches read {new}: {len(index.names(new))} rows; before: {old}")


def _missing(index: Index, old: str, new: str) -> list[str]:
    return sorted(set(index.names(old)) - set(index.names(new)))


def _fill(
    index: Index,
    client: featurewire.Client,
    images: Path,
    spaces: tuple[str, str],
    lock: Callable[[], AbstractContextManager[None]],
    max_refused: int,
    say: Callable[[str], None],
) -> set[str]:
    """Embed the rows that the new table lacks; returns the names of images without a vector."""
    missing, refused = _missing(index, *spaces), set()
    names: list[str] = []
    vectors: list[np.ndarray] = []

    def write() -> None:
        if names:
            with lock():
                index.append(spaces[1], names, np.stack(vectors))
            names.clear()
            vectors.clear()

    for done, result in enumerate(client.stream((name, images / name) for name in missing), 1):
        if result.error is not None:
            refused.add(result.key)
            say(f"{result.key}: {result.error}")
            if len(refused) > max_refused:
                raise ReindexError(
                    f"{len(refused)} images give no vector: fix them, or allow it by --max-refused"
                )
        else:
            names.append(result.key)
            vectors.append(result.embedding.vector)
        if len(names) == ROWS_PER_WRITE or done == len(missing):
            write()
            say(f"{done} of {len(missing)} rows")
    return refused


def _check(
    index: Index,
    client: featurewire.Client,
    images: Path,
    spaces: tuple[str, str],
    refused: set[str],
) -> None:
    """Raises `ReindexError` unless the new table has the old one's rows, embedded correctly."""
    old, new = (index.names(space) for space in spaces)
    wanted = set(old) - refused
    if set(new) != wanted or len(new) != len(wanted):
        raise ReindexError(
            f"the new table has {len(new)} rows of {len(set(new))} images instead of "
            f"{len(wanted)}: delete it and start again"
        )
    probed = sorted(wanted)[:: max(1, len(wanted) // PROBED)]
    for result in client.stream((name, images / name) for name in probed):
        best = index.nearest(spaces[1], result.unwrap().vector, 1)
        if not best or best[0][1] < SAME:
            raise ReindexError(f"{result.key} does not find itself in the new table: do not use it")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("index", help="lance:FOLDER or faiss:FOLDER")
    parser.add_argument("--images", type=Path, required=True, help="the folder of the rows' names")
    parser.add_argument("--server", default="localhost:8500", metavar="HOST:PORT")
    parser.add_argument("--model", required=True)
    parser.add_argument("--label", default="stable", help="of the new version")
    parser.add_argument("--max-refused", type=int, default=0, metavar="N")
    args = parser.parse_args()
    stream = featurewire.StreamConfig(readers=4)
    try:
        with featurewire.Client(
            args.server, model=args.model, label=args.label, stream=stream
        ) as client:
            index = open_index(args.index)
            reindex(index, client, args.images, max_refused=args.max_refused)
    except (ReindexError, WrongSpaceError, featurewire.FeaturewireError, OSError) as error:
        print(f"reindex: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
