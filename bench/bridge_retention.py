"""Recall that bridges between EfficientNet-Lite0 and Lite1 retain, learned from 50 to 500 pictures.

The pictures are Debian's `tuxpaint-stamps-default` and the sample photos. Two crops of each picture
after the first 500 are searched for among these pictures. "Kept" is the recall relative to that of
embedding everything again.

    python -m bench.bridge_retention [--views N]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np

from bench._learned_pair import LEARNED, export, pictures
from bench.machine import describe, print_table

COUNTS = (50, 125, 250, 500)
NAMES = ("lite0", "lite1")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.bridge_retention", description=__doc__)
    parser.add_argument("--views", type=int, default=4, help="views per picture")
    options = parser.parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from featurewire_exporter.bridge.embedding import embed_pictures
    from featurewire_exporter.bridge.fit import choose, measure

    every, vectors = pictures(), {}
    print(describe("tensorflow"))
    print(f"{LEARNED} pictures to learn from, {len(every) - LEARNED} others")
    with tempfile.TemporaryDirectory(prefix="featurewire-bench-") as folder:
        for version, name in enumerate(NAMES, 1):
            export(Path(folder), name)
            directory = Path(folder) / "lite" / str(version)
            vectors[name] = embed_pictures(
                directory, every, options.views, lambda _: None, name
            ).vectors
    whole = np.logical_and.reduce([np.isfinite(each).all(axis=(1, 2)) for each in vectors.values()])
    rows = []
    for new, old in (NAMES[::-1], NAMES):
        x, y = vectors[new][whole], vectors[old][whole]
        for count in COUNTS:
            fitted, _ = choose(x[:count], y[:count])
            found = measure(fitted, x, y, np.arange(LEARNED, len(x)))
            row = [found.at_1, found.at_10, found.bridged.at_1, found.bridged.at_10]
            row += [found.reembedded.at_1, found.reembedded.at_10, found.overlap_at_10]
            rows.append([f"{new} to {old}", count, fitted.kind, *(f"{each:.3f}" for each in row)])
    header = ["bridge", "pictures", "map", "kept@1", "kept@10", "bridged@1", "bridged@10"]
    print_table([*header, "again@1", "again@10", "overlap@10"], rows)
    print("wanted, from 500 pictures: kept@1 >= 0.90, kept@10 >= 0.98")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
