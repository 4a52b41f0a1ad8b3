"""`StreamConfig(readers=8)` beside eight threads by hand, where each image takes 20 ms to get.

Both get the same images by the same function and send them to the same server, which answers at
once, in a process of its own. They take turns; the median of the rounds is shown.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from bench._instant_server import instant_server
from bench.machine import describe, print_table
from featurewire import Client, StreamConfig

READERS = 8
FETCH_SECONDS = 0.02
IMAGES = 1200
ROUNDS = 3
LIMIT = 0.9


def get(number: int) -> bytes:
    time.sleep(FETCH_SECONDS)
    return number.to_bytes(8, "little") + bytes(100_000)


def by_stream(client: Client) -> int:
    sources = (partial(get, number) for number in range(IMAGES))
    return sum(result.error is None for result in client.stream(sources))


def by_hand(client: Client) -> int:
    with ThreadPoolExecutor(READERS) as pool:
        return len(list(pool.map(lambda number: client.embed(get(number)), range(IMAGES))))


def rate(work: Callable[[Client], int], client: Client) -> float:
    start = time.perf_counter()
    if work(client) != IMAGES:
        raise AssertionError("an image is missing")
    return IMAGES / (time.perf_counter() - start)


def main() -> int:
    print(describe("grpcio", "numpy", "protobuf"))
    config = StreamConfig(readers=READERS)
    with (
        instant_server() as server,
        Client(server.target, model="instant", stream=config) as client,
    ):
        rounds = [(rate(by_stream, client), rate(by_hand, client)) for _ in range(ROUNDS)]
    ours, theirs = (statistics.median(each) for each in zip(*rounds, strict=True))
    print_table(
        ["getting takes 20 ms", "images/s"],
        [
            [f"stream, readers={READERS}", f"{ours:.0f}"],
            [f"{READERS} threads by hand", f"{theirs:.0f}"],
            ["ratio", f"{ours / theirs:.2f}"],
        ],
    )
    held = ours >= LIMIT * theirs
    print(f"limit of the ratio: {LIMIT}; {'held' if held else 'missed'}")
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
