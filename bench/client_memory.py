"""Memory of `Client.stream` over 200,000 images of 100 KB: the peak after all and after 2,000.

With `tiny`: over 500,000 images of 8 bytes.

The server answers at once, in a process of its own. The images come from a generator, a new
`bytes` each, and are gone when the stream is done with them.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator

from bench._instant_server import instant_server
from bench.machine import describe, print_table
from featurewire import Client

IMAGES, TINY_IMAGES = 200_000, 500_000
EARLY = 2_000
IMAGE_BYTES = 100_000
LIMIT_MB = 50.0


def peak_mb() -> float:
    """The largest resident set of this process so far, in 10^6 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def images(count: int, size: int) -> Iterator[tuple[int, bytes]]:
    filling = bytes(size - 8)
    for number in range(count):
        yield number, number.to_bytes(8, "little") + filling


def main(argv: list[str] | None = None) -> int:
    tiny = "tiny" in (sys.argv[1:] if argv is None else argv)
    total, size = (TINY_IMAGES, 8) if tiny else (IMAGES, IMAGE_BYTES)
    print(describe("grpcio", "numpy", "protobuf"))
    before = peak_mb()
    marks = {}
    with instant_server() as server, Client(server.target, model="instant") as client:
        start = time.perf_counter()
        for count, result in enumerate(client.stream(images(total, size)), 1):
            if result.embedding is None or result.key != count - 1:
                raise AssertionError(f"result {count - 1} is missing: {result}")
            if count in (EARLY, 10 * EARLY, total):
                marks[count] = peak_mb()
        seconds = time.perf_counter() - start
    growth = marks[total] - marks[EARLY]
    print_table(
        ["peak of the resident memory", "MB"],
        [
            ["before the first image", f"{before:.0f}"],
            *([f"after {count:,} images", f"{mark:.0f}"] for count, mark in marks.items()),
            [f"growth after {EARLY:,} (limit {LIMIT_MB:.0f})", f"{growth:.0f}"],
        ],
    )
    print(f"{total:,} images in {seconds:.1f} s: {total / seconds:.0f} images/s")
    print("held" if growth <= LIMIT_MB else "missed")
    return 0 if growth <= LIMIT_MB else 1


if __name__ == "__main__":
    raise SystemExit(main())
