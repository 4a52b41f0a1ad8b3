"""Error rates of `rollout check`, and the number of images that it needs to detect a worse version.

The vectors are from EfficientNet-Lite0 (and Lite1 as another space), for pictures of Debian's
`tuxpaint-stamps-default` or, if it is not installed, tiles of the sample photos. Each comparison
draws its images again. Latencies vary by a fifth and have a tail, as on a shared server. A version
that should pass is also compared in bfloat16, as the exporter makes it.

The default limits were chosen with these data. `--network lite1`, `--photos DIR` (tiles of other
photos) and the faults named "held out" had no part in that.

    python -m bench.rollout_check [--network lite0|lite1] [--photos DIR] [--images N] [--draws N]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench._photos import SAMPLES
from bench.machine import describe, print_table
from featurewire_rollout.check import Pairs, Side, Thresholds
from featurewire_rollout.check.crops import crop
from featurewire_rollout.check.measures import measure
from featurewire_rollout.check.neighbours import unit
from featurewire_rollout.check.verdict import decide
from tests.support.learned import IMAGE_SIZE, read_weights, write_learned_module
from tests.support.pictures import NO_STAMPS, on_white, stamps, write_tiles

COUNTS = (6, 8, 10, 15, 20, 30, 40, 60, 80, 120, 160, 240)
BATCH = 32
FAULT_DRAWS = 100
SURE = 0.9
"""Fraction of draws that must fail for a worse version to count as detected."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.rollout_check")
    parser.add_argument("--images", type=int, default=800, help="maximum number to draw from")
    parser.add_argument("--draws", type=int, default=200, help="comparisons of each kind")
    parser.add_argument("--network", choices=tuple(OTHER), default="lite0")
    parser.add_argument("--photos", type=Path, help="a folder; tiles of its photos are the images")
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    print(describe("tensorflow", "numpy"))
    with tempfile.TemporaryDirectory() as scratch:
        images = _images(Path(scratch), args.images, args.photos)
        vectors = _vectors(Path(scratch), images, args.network)
    limits = Thresholds()
    print(f"\n{args.draws} comparisons each; the goal is at most {limits.error_rate:.0%} fail")
    rows = []
    for name in ("itself", "bfloat16"):
        for count in (20, 60, 120, 240):
            said = _said(vectors, name, count, args.draws)
            rows.append([name, count, *(said.count(each) / args.draws for each in OUTCOMES)])
    print_table(["against", "images", *OUTCOMES], rows)
    draws = min(args.draws, FAULT_DRAWS)
    print(
        f"\nfraction of {draws} comparisons that fail, by number of images; cosines of all images"
    )
    rows = []
    for name in vectors:
        if name in ("itself", "bfloat16"):
            continue
        shares: list[float] = []
        for count in COUNTS:
            shares.append(_said(vectors, name, count, draws).count("fail") / draws)
            if shares[-1] >= SURE:
                break
        caught = COUNTS[len(shares) - 1] if shares[-1] >= SURE else f"> {COUNTS[-1]}"
        cells = [f"{share:.2f}" for share in shares] + [""] * (len(COUNTS) - len(shares))
        rows.append([name, caught, *_cosines(vectors, name), *cells])
    print_table(["worse version", f"found ({SURE:.0%})", "median", "p5", *map(str, COUNTS)], rows)
    return 0


OTHER = {"lite0": "lite1", "lite1": "lite0"}
OUTCOMES = ("pass", "fail", "inconclusive")
Both = tuple[np.ndarray, np.ndarray]


def _said(vectors: dict[str, Both], name: str, count: int, draws: int) -> list[str]:
    limits, said = Thresholds(), []
    whole = len(vectors["itself"][0])
    for draw in range(draws):
        chance = np.random.default_rng(draw)
        rows = chance.choice(whole, min(count, whole), replace=False)
        sides = []
        for version, which in ((1, "itself"), (2, name)):
            times = 0.1 * np.exp(0.2 * chance.standard_normal(len(rows)))
            times[chance.random(len(rows)) < 0.03] *= 6
            images, crops = vectors[which]
            sides.append(
                Side(
                    name="stable" if version == 1 else "canary",
                    version=version,
                    vectors=images[rows],
                    latencies=times,
                    crops=crops[rows],
                )
            )
        names = tuple(map(str, rows))
        pairs = Pairs(model="lite0", names=names, stable=sides[0], canary=sides[1])
        measures, _ = measure(pairs, limits, seed=draw)
        verdict = decide(measures, limits, images=len(rows), same_dimension=True)
        said.append(str(verdict.outcome))
    return said


def _cosines(vectors: dict[str, Both], name: str) -> list[str]:
    """Median and 5th percentile of the cosine; an image counts with its or its crop's lower one."""
    both = [
        (unit(one) * unit(other)).sum(axis=1)
        for one, other in zip(vectors["itself"], vectors[name], strict=True)
    ]
    return [f"{each:.4f}" for each in np.percentile(np.minimum(*both), [50, 5])]


def _images(scratch: Path, count: int, photos: Path | None) -> list[bytes]:
    paths = stamps()
    if paths and photos is None:
        images = [on_white(path) for path in paths]
    else:
        if photos is None:
            print(f"{NO_STAMPS}: tiles of the sample photos instead, which differ less")
        found = sorted((photos or SAMPLES).rglob("*.jpg"))
        print(f"tiles of {len(found)} photos")
        folder = write_tiles(found, scratch / "tiles", count)
        images = [path.read_bytes() for path in sorted(folder.iterdir())]
    images = sorted(set(images))
    order = np.random.default_rng(0).permutation(len(images))
    print(f"{min(count, len(images))} images")
    return [images[row] for row in order[:count]]


def _vectors(scratch: Path, images: list[bytes], name: str) -> dict[str, Both]:
    """The vectors of the images and of their crops by version: two float64 `[N, 1280]`."""
    import tensorflow as tf

    from featurewire_exporter.commands import export
    from featurewire_exporter.preprocess import PreprocessConfig, build_preprocess

    crops = [crop(image, seed=0, turned=row % 2 == 1) for row, image in enumerate(images)]
    strongest, weakest = _filters(name)

    def module(network: str, **options: Any) -> Any:
        folder = scratch / f"{network}-{len(list(scratch.iterdir()))}"
        return tf.saved_model.load(str(write_learned_module(folder, network, **options)))

    learned = write_learned_module(scratch / "module", name)
    whole = tf.saved_model.load(str(learned))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        export([str(learned), str(scratch / "bf16"), "--precision", "bfloat16"])
    low = tf.saved_model.load(str(scratch / "bf16" / "1")).signatures["image_feature_vector"]

    def run(network: Callable[[Any], Any], size: int = IMAGE_SIZE[name], **settings: Any) -> Both:
        preprocess = build_preprocess(PreprocessConfig(height=size, width=size, **settings))
        made = []
        for encoded in (images, crops):
            parts = [encoded[start : start + BATCH] for start in range(0, len(encoded), BATCH)]
            outputs = [np.asarray(network(preprocess(tf.constant(part))[0])) for part in parts]
            made.append(np.concatenate(outputs).astype(np.float64))
        return made[0], made[1]

    def grey(pixels: Any) -> Any:
        return whole(tf.repeat(tf.reduce_mean(pixels, -1, keepdims=True), 3, -1))

    return {
        "itself": run(whole),
        "bfloat16": run(lambda pixels: low(images=pixels)["default"]),
        "antialias off": run(whole, antialias=False),
        "EXIF ignored": run(whole, exif_orientation=False),
        "red and blue exchanged": run(lambda pixels: whole(pixels[..., ::-1])),
        "strongest filter zeroed": run(module(name, zero_filters=[strongest])),
        "weakest filter zeroed": run(module(name, zero_filters=[weakest])),
        "another space": run(module(OTHER[name]), size=IMAGE_SIZE[OTHER[name]]),
        "held out: grey": run(grey),
        "held out: mirrored": run(lambda pixels: whole(pixels[:, :, ::-1])),
        "held out: a tenth brighter": run(lambda pixels: whole(tf.minimum(pixels * 1.1, 1))),
        "held out: half the contrast": run(lambda pixels: whole(pixels / 2 + 0.25)),
        "held out: middle 87.5 % only": run(whole, central_crop=0.875),
        "held out: shrunk by lanczos3": run(whole, resize_method="lanczos3"),
        "held out: a filter in the middle zeroed": run(module(name, change=_drop_in_the_middle)),
        "held out: weights of 8 bits": run(module(name, change=_eight_bits)),
    }


def _drop_in_the_middle(weights: dict[str, np.ndarray]) -> None:
    weights["_blocks.5._expand_conv.weight"][0] = 0


def _eight_bits(weights: dict[str, np.ndarray]) -> None:
    """Round the weights to 8 bits with one scale per filter, as in quantised networks."""
    for key, value in weights.items():
        if value.ndim == 4:
            scale = np.abs(value).max(axis=(1, 2, 3), keepdims=True) / 127
            weights[key] = np.round(value / np.where(scale > 0, scale, 1)) * scale


def _filters(name: str) -> tuple[int, int]:
    """The filters of the first convolution with the largest and the smallest weights."""
    weights = read_weights(name)
    scale = np.abs(weights["_bn0.weight"]) / np.sqrt(weights["_bn0.running_var"] + 1e-3)
    strength = np.abs(weights["_conv_stem.weight"]).sum(axis=(1, 2, 3)) * scale
    return int(strength.argmax()), int(strength.argmin())


if __name__ == "__main__":
    sys.exit(main())
