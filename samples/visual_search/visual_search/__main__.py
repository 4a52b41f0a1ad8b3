"""The commands of the sample: serve, index, switch, tables."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import uvicorn

import featurewire
from visual_search.index import IndexProblem, PhotoIndex, SpaceTable
from visual_search.indexing import Progress, find_photos, index_photos
from visual_search.service import Settings, connect, create_app


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m visual_search", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)

    serve = commands.add_parser("serve", help="index the photos and open the page")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on")
    serve.add_argument("--port", type=int, default=8600)
    serve.add_argument(
        "--allow-host",
        action="append",
        default=["localhost", "127.0.0.1"],
        help="a host name that browsers may use for the page, in addition to localhost",
    )
    index = commands.add_parser("index", help="embed the photos into their space's table")
    for command in (serve, index):
        command.add_argument("--photos", type=Path, required=True, help="folder of photos")
        command.add_argument("--server", default="localhost:8500", metavar="HOST:PORT")
        command.add_argument("--model", default="inception_resnet_v2")
        command.add_argument("--label", help="version label to follow, such as stable or canary")

    switch = commands.add_parser("switch", help="make searches read another table")
    switch.add_argument("vector_space", nargs="?", help="default: the only other one")
    switch.add_argument("--photos", type=Path, help="refuse a table that lacks some of these")
    tables = commands.add_parser("tables", help="list the tables and mark the current one")
    for command in (serve, index, switch, tables):
        command.add_argument("--index", type=Path, required=True, help="folder of the index")
    return top


def settings_of(arguments: argparse.Namespace, hosts: tuple[str, ...] = ()) -> Settings:
    if not arguments.photos.is_dir():
        raise IndexProblem(f"{arguments.photos} is not a folder: name a folder of photos")
    return Settings(
        photos=arguments.photos,
        index=arguments.index,
        server=arguments.server,
        model=arguments.model,
        label=arguments.label,
        hosts=hosts,
    )


async def index(settings: Settings) -> None:
    progress = Progress()

    async def show() -> None:
        while True:
            await asyncio.sleep(1)
            print(f"{progress.done} of {progress.found} photos", file=sys.stderr, flush=True)

    photo_index = PhotoIndex(settings.index)
    showing = asyncio.create_task(show())
    try:
        async with connect(settings) as client:
            table = await index_photos(settings.photos, photo_index, client, progress)
    finally:
        showing.cancel()
    searched = photo_index.current()
    print(
        f"{table.count()} photos in {table.vector_space}, {progress.new} of them new; "
        f"{progress.failed} failed"
    )
    if searched is not None and searched.name != table.name:
        print(
            f"Searches still read {searched.vector_space}. To switch: "
            f"python -m visual_search switch --index {settings.index} {table.vector_space}"
        )


def switch(index: PhotoIndex, vector_space: str | None, photos: Path | None) -> None:
    searched = index.current()
    others = [each for each in index.tables() if searched is None or each.name != searched.name]
    chosen = [each for each in others if vector_space in (None, each.vector_space)]
    if len(chosen) != 1:
        names = ", ".join(each.vector_space for each in others) or "none"
        raise IndexProblem(f"name the vector space to switch to; the others are: {names}")
    (table,) = chosen
    if photos is not None:
        _refuse_incomplete(table, photos)
    index.switch(table)
    before = "nothing" if searched is None else searched.vector_space
    print(f"Searches read {table.vector_space} ({table.count()} photos); before: {before}")


def _refuse_incomplete(table: SpaceTable, photos: Path) -> None:
    seen = table.seen()
    lacking = sum(seen.get(each.path) != (each.size, each.modified) for each in find_photos(photos))
    if lacking:
        raise IndexProblem(
            f"the table of {table.vector_space} lacks {lacking} photos: finish `index` first"
        )


def show_tables(index: PhotoIndex) -> None:
    searched = index.current()
    for table in index.tables():
        mark = "searched" if searched is not None and searched.name == table.name else ""
        print(f"{table.vector_space}  {table.count():>8} photos  {mark}".rstrip())


def main() -> int:
    arguments = parser().parse_args()
    try:
        if arguments.command == "serve":
            settings = settings_of(arguments, tuple(arguments.allow_host))
            app = create_app(settings)
            print(f"The page: http://{arguments.host}:{arguments.port}/", flush=True)
            uvicorn.run(app, host=arguments.host, port=arguments.port, log_level="warning")
        elif arguments.command == "index":
            asyncio.run(index(settings_of(arguments)))
        elif not arguments.index.is_dir():
            raise IndexProblem(f"{arguments.index} has no index: run `index` or `serve` first")
        elif arguments.command == "switch":
            switch(PhotoIndex(arguments.index), arguments.vector_space, arguments.photos)
        else:
            show_tables(PhotoIndex(arguments.index))
    except (IndexProblem, featurewire.FeaturewireError, OSError) as error:
        print(f"visual_search: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
