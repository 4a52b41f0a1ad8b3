"""What preprocessing does to vectors that mean something: cosines, with learned weights.

The reference of a photo is TensorFlow's own full decode (`decode_image`) and antialiased
`tf.image.resize`. The photos are the samples, or a folder's, also enlarged to 12 and 3 megapixels
so that their decode is scaled, and all encoded at quality 95: a coarser one costs a small copy
more than preprocessing does. The network is EfficientNet-Lite0, unless
`--module` names another.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench._photos import SAMPLES, jpeg, of_pixels, photos, resized
from bench.machine import describe, print_table
from tests.support.learned import write_learned_module

SIZE = 224
QUALITY = 95
EXIF_TURN = 6
GOALS = {
    "12 MP": (0.997, 0.999),
    "3 MP": (0.997, 0.999),
    "as it is": (0.997, 0.999),
    "60 % copy": (0.995, None),
    "60 % copy, 12 MP": (0.995, None),
    "EXIF-turned": (0.995, None),
    "EXIF-turned, 12 MP": (0.995, None),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.faithfulness")
    parser.add_argument("--photos", type=Path, default=SAMPLES, help="a folder of photos")
    parser.add_argument(
        "--module",
        type=Path,
        help="a TF2 SavedModel that takes 224x224 images (default: EfficientNet-Lite0)",
    )
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as scratch:
        measure = _measure(args.module or write_learned_module(Path(scratch) / "lite0"))
    print(describe("tensorflow"))
    cosines: dict[str, list[float]] = {}
    rows = []
    for name, picture in photos(args.photos):
        found = measure(picture)
        for kind, cosine in found.items():
            cosines.setdefault(kind, []).append(cosine)
        rows.append([name, *(f"{found[kind]:.4f}" for kind in GOALS)])
    print_table(["cosine", *GOALS], rows)
    print()
    for kind, (least, median) in GOALS.items():
        values = cosines[kind]
        goal = f"at least {least}" + (f", {median} in the median" if median else "")
        figures = f"{min(values):.4f} at least, {statistics.median(values):.4f} in the median"
        print(f"{kind}: {figures}; the goal is {goal}")
    return 0


def _measure(module: Path) -> Callable[..., dict[str, float]]:
    import numpy as np
    import tensorflow as tf
    from PIL import Image

    from featurewire_exporter.preprocess import PreprocessConfig, build_preprocess

    network = tf.saved_model.load(str(module))
    preprocess = build_preprocess(PreprocessConfig(height=SIZE, width=SIZE))

    def served(data: bytes) -> tf.Tensor:
        images, status = preprocess(tf.constant([data]))
        assert not status[0]
        return images[0]

    def full(data: bytes) -> tf.Tensor:
        image = tf.io.decode_image(data, channels=3, expand_animations=False)
        return tf.image.resize(image, [SIZE, SIZE], antialias=True) / 255

    def cosine(one: tf.Tensor, other: tf.Tensor) -> float:
        vectors = np.asarray(network(tf.stack([one, other])), np.float64)
        return float(vectors[0] @ vectors[1] / np.prod(np.linalg.norm(vectors, axis=1)))

    def measure(picture: Image.Image) -> dict[str, float]:
        sizes = {"": picture, "12 MP": of_pixels(picture, 12e6), "3 MP": of_pixels(picture, 3e6)}
        tag = Image.Exif()
        tag[0x0112] = EXIF_TURN
        found = {}
        for size, whole in sizes.items():
            data = jpeg(whole, QUALITY)
            found[size or "as it is"] = cosine(served(data), full(data))
            smaller = resized(whole, round(whole.width * 0.6), round(whole.height * 0.6))
            stored = whole.transpose(Image.Transpose.ROTATE_90)
            turned = jpeg(stored, QUALITY, exif=tag.tobytes())
            suffix = f", {size}" if size else ""
            found["60 % copy" + suffix] = cosine(served(data), served(jpeg(smaller, QUALITY)))
            found["EXIF-turned" + suffix] = cosine(served(data), served(turned))
        return found

    return measure


if __name__ == "__main__":
    sys.exit(main())
