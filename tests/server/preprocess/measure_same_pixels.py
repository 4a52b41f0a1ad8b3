"""The long form of test_same_pixels: folders of files, generated files, and damaged ones.

    python -m tests.server.preprocess.measure_same_pixels --generated 4000 --damaged 20000 FOLDER...

Prints the number of files and of differences per kind, and writes files that differ to --keep.
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.server.preprocess.compare import Comparison, compared
from tests.server.preprocess.files import damaged, generated

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".webp", ".apng"}
LONGEST = 2 << 20


def files(folders: list[Path]) -> Iterator[tuple[str, bytes]]:
    for path in sorted(path for folder in folders for path in folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file() and path.stat().st_size < LONGEST:
            yield f"corpus {path.suffix.lower()[1:]}", path.read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--generated", type=int, default=1000)
    parser.add_argument("--damaged", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    intact = list(files(args.folders))
    intact += itertools.islice(generated(args.seed), args.generated)
    chance = random.Random(args.seed)
    small = [each for each in intact if len(each[1]) < 60_000 and each[1]]
    broken = [
        (f"damaged {name}", damaged(data, chance))
        for name, data in (chance.choice(small) for _ in range(args.damaged))
    ]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for number, each in enumerate(compared(intact + broken)):
        row = counts[each.name]
        row["files"] += 1
        row["ok in both"] += each.status == each.graph_status == 0
        if not each.agrees:
            row["different"] += 1
            report(each, number, args.keep)
    for name, row in sorted(counts.items()):
        print(f"{name}: {dict(row)}")
    print("all:", dict(sum(counts.values(), Counter())))


def report(each: Comparison, number: int, keep: Path | None) -> None:
    print(
        f"{number} {each.name}: graph {each.graph_status}, here {each.status}, "
        f"difference {each.difference:.2g}",
        flush=True,
    )
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{number}.{each.name.split()[-1]}").write_bytes(each.data)


if __name__ == "__main__":
    main()
