"""Embed an index again in the vector space of a new version, and let searches change over to it.

    python reindex.py lance:photos.lance --images ~/Pictures --server localhost:8500 --model m

Searches and writers go on meanwhile, in the old space through the new version's bridge. Killed at
any moment, it goes on where it was when it is given again.
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
"""So few missing rows are embedded while writers wait, so that none comes between."""
PROBED = 32
"""Rows of the new table that are embedded once more and looked for in it."""
SAME = 0.999
"""Cosine of an image's row and the same image embedded again."""


class ReindexError(Exception):
    """Something that the user can act on: one line."""


def open_index(name: str) -> Index:
    """The index behind `lance:FOLDER` or `faiss:FOLDER`."""
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
        raise ReindexError(f"version {metadata.version} names no vector space")
    return str(metadata.manifest["vector_space"])


def find(
    index: Index, client: featurewire.Client, image: bytes, count: int = 10
) -> list[tuple[str, float]]:
    """A search: names and cosines. Right before, during and after a change of model."""
    space = index.current()
    if space is None:
        return []
    query = client.with_options(vector_space=space).embed(image)
    return index.search(space, query.vector, count)


def add(
    index: Index, client: featurewire.Client, images: Path, names: Sequence[str]
) -> dict[int, featurewire.ImageError]:
    """A writer: adds files below `images`; those that gave no vector, by their place."""
    while True:
        space = index.current() or space_of(client)
        batch = _embed_rows(client, space, [images / name for name in names])
        good = [row for row in range(len(names)) if row not in batch.errors]
        try:
            if good:
                index.add(space, [names[row] for row in good], batch.vectors[good])
            return batch.errors
        except WrongSpaceError:  # searches changed over meanwhile
            continue


def _embed_rows(
    client: featurewire.Client, space: str, images: Sequence[Path]
) -> featurewire.EmbeddingBatch:
    """By a version that has the space itself, else through the bridge.

    The version of before is loaded until `rollout retire`. Bridged queries lie nearer to bridged
    rows than to others, so a table that holds both finds these too often.
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
    """Fill a table of `client`'s space, check it, and let searches read it.

    `images`: the folder that the names of the rows are relative to. `max_refused`: so many rows
    may be left behind whose image gives no vector any more. Raises `ReindexError`.
    """
    old, new = index.current(), space_of(client)
    if old is None:
        raise ReindexError(f"{index.folder} holds no rows to embed again")
    if old == new:
        say(f"searches read {new} already")
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
    """Embed what the new table lacks; the names whose images give no vector."""
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
                    f"{len(refused)} images give no vector: mend them, or allow it by --max-refused"
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
    """Raises `ReindexError` where the new table is not what the old one is, embedded again."""
    old, new = (index.names(space) for space in spaces)
    wanted = set(old) - refused
    if set(new) != wanted or len(new) != len(wanted):
        raise ReindexError(
            f"the new table has {len(new)} rows of {len(set(new))} images, and {len(wanted)} are "
            "wanted: delete it and begin again"
        )
    probed = sorted(wanted)[:: max(1, len(wanted) // PROBED)]
    for result in client.stream((name, images / name) for name in probed):
        best = index.nearest(spaces[1], result.unwrap().vector, 1)
        if not best or best[0][1] < SAME:
            raise ReindexError(f"{result.key} does not find itself in the new table: do not use it")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("index", help="lance:FOLDER or faiss:FOLDER")
    parser.add_argument("--images", type=Path, required=True, help="the rows' names are below it")
    parser.add_argument("--server", default="localhost:8500", metavar="HOST:PORT")
    parser.add_argument("--model", required=True)
    parser.add_argument("--label", default="stable", help="whose space the new table gets")
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
