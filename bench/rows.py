"""Whether a request costs what its images cost: times of 1 to 33 images, and of bad ones.

A lone request, over gRPC with batching on, for each engine. No row is computed that only pads, and
an image that is refused or broken costs no network.

    python -m bench.rows [ENGINE …] [--base-path DIR] [--rounds N]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path

from bench._published import published, serving
from bench._serving_load import MODEL, jpegs
from bench.machine import describe, print_table
from featurewire import Client

ENGINES = ("tensorflow", "openvino")
COUNTS = (1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 24, 25, 32, 33)
BAD = 32
"""Images of a batch of good ones, and of bad ones."""
PROPORTION = 0.15
BAD_SHARE = 0.03


def seconds(client: Client, images: list[bytes]) -> float:
    started = time.perf_counter()
    client.embed_batch(images)
    return time.perf_counter() - started


def measure(
    client: Client, photos: list[bytes], rounds: int
) -> tuple[dict[int, float], dict[str, float]]:
    """Seconds by number of images, and by kind of bad images; medians."""
    cut = [photo[: len(photo) // 2] for photo in photos]
    kinds = {"good": photos, "cut short": cut, "no image": [b"no image"], "empty": [b""]}
    batches = {kind: _cycled(contents, BAD) for kind, contents in kinds.items()}
    counts: dict[int, list[float]] = {count: [] for count in COUNTS}
    bad: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(rounds + 1):  # the first one warms up sizes that no other has
        for count in COUNTS:
            counts[count].append(seconds(client, _cycled(photos, count)))
        for kind, batch in batches.items():
            bad[kind].append(seconds(client, batch))
        if not turn:
            for times in (*counts.values(), *bad.values()):
                times.clear()
    return (
        {count: statistics.median(times) for count, times in counts.items()},
        {kind: statistics.median(times) for kind, times in bad.items()},
    )


def _cycled(contents: list[bytes], count: int) -> list[bytes]:
    return list(itertools.islice(itertools.cycle(contents), count))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.rows", description=__doc__)
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help="tensorflow, openvino")
    parser.add_argument("--base-path", type=Path, help="a published artifact")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(argv)
    print(describe("tensorflow", "openvino"))
    wrong = False
    with tempfile.TemporaryDirectory(prefix="featurewire-bench-") as scratch:
        base_path = options.base_path or published(Path(scratch))
        for engine in options.engines or ENGINES:
            with (
                serving(base_path, MODEL, f"--engine={engine}") as target,
                Client(target, model=MODEL, timeout=120) as client,
            ):
                client.wait_until_ready(120)
                counts, bad = measure(client, jpegs(), options.rounds)
            usual = statistics.median(time / count for count, time in counts.items())
            rows = [
                [count, f"{1000 * time:.0f}", f"{time / count / usual:.2f}"]
                for count, time in counts.items()
            ]
            print_table([f"{engine}: images", "ms", "an image, of the median"], rows)
            shares = {kind: time / bad["good"] for kind, time in bad.items() if kind != "good"}
            print_table(
                [f"{BAD} images", "of good ones"],
                [[kind, f"{100 * share:.1f} %"] for kind, share in shares.items()],
            )
            wrong |= any(
                abs(time / count / usual - 1) > PROPORTION for count, time in counts.items()
            )
            wrong |= any(share >= BAD_SHARE for share in shares.values())
    print(f"wanted: within {PROPORTION:.0%} of the median; bad ones below {BAD_SHARE:.0%}")
    return int(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
