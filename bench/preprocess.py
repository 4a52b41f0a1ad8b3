"""What preprocessing costs: CPU time of the served graph beside TensorFlow's own ops.

Two peers, each in a `map_fn` and without isolation, run from a SavedModel in a TF1 Session as the
served graph is: `plain` is `decode_image`, conversion to float and `tf.image.resize`, as most
exports have it; `same` has the same decode and the antialiased resize. Every figure is
processor time of the whole process, for one image; the least of some rounds, in which all take
turns. `floor` is the entropy decoding alone, as far as it can be had (a decode at 1/8).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench._photos import SAMPLES, covering, jpeg, photos
from bench.machine import describe, print_table

SIZE = 299
ROUNDS = 5
LIMITS = {"12 MP": ("plain", 0.35), "640 px": ("same", 1.2)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.preprocess")
    parser.add_argument("--photos", type=Path, default=SAMPLES, help="a folder of photos")
    parser.add_argument("--quality", type=int, default=90, help="of the JPEGs that are made")
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    ways = runs()
    print(describe("tensorflow"))
    rows, ratios = [], {}
    for name, picture in photos(args.photos):
        for kind, (width, height), batch in (
            ("12 MP", (4000, 3000), 1),
            ("12 MP", (4000, 3000), 8),
            ("640 px", (640, 427), 1),
            ("640 px", (640, 427), 8),
        ):
            image = jpeg(covering(picture, width, height), args.quality)
            times = _milliseconds(ways, [image] * batch, 1 if width > 640 else 8)
            peer, _ = LIMITS[kind]
            ratio = times["served"] / times[peer]
            ratios.setdefault((kind, batch), []).append(ratio)
            figures = [f"{times[run]:.2f}" for run in ways]
            size = f"{len(image) / 1000:.0f} KB"
            rows.append([f"{name}, {kind}", batch, size, *figures, f"{ratio:.2f}"])
    print_table(["CPU ms an image", "batch", "JPEG", *ways, "ratio"], rows)
    print()
    for (kind, batch), values in ratios.items():
        peer, limit = LIMITS[kind]
        print(
            f"{kind}, batch of {batch}: {statistics.median(values):.2f} of `{peer}` in the median, "
            f"{max(values):.2f} at most; the goal is {limit}"
        )
    return 0


def runs() -> dict[str, Callable[[list[bytes]], object]]:
    import tensorflow as tf

    from featurewire_exporter.preprocess import PreprocessConfig, build_preprocess

    tf.get_logger().setLevel("ERROR")

    def each(one: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], list[tf.Tensor]]:
        return lambda data: [tf.map_fn(one, data, fn_output_signature=tf.float32)]

    def plain(data: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(data, channels=3, expand_animations=False)
        return tf.image.resize(tf.image.convert_image_dtype(image, tf.float32), [SIZE, SIZE])

    def same(data: tf.Tensor) -> tf.Tensor:
        image = tf.image.convert_image_dtype(tf.io.decode_jpeg(data, channels=3), tf.float32)
        return tf.image.resize(image, [SIZE, SIZE], antialias=True)

    def floor(data: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.io.decode_jpeg(data, channels=3, ratio=8)[0, 0], tf.float32)

    graphs = {
        "served": build_preprocess(PreprocessConfig(height=SIZE, width=SIZE)),
        "plain": each(plain),
        "same": each(same),
        "floor": each(floor),
    }
    return {name: _session(graph) for name, graph in graphs.items()}


def _session(graph: Callable[..., object]) -> Callable[[list[bytes]], object]:
    import numpy as np
    import tensorflow as tf

    tf1 = tf.compat.v1
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "model")
        with tf.Graph().as_default(), tf1.Session() as session:
            data = tf1.placeholder(tf.string, [None])
            outputs = {f"output_{at}": value for at, value in enumerate(graph(data))}
            tf1.saved_model.simple_save(session, path, {"data": data}, outputs)
        session = tf1.Session(graph=tf.Graph())
        with session.graph.as_default():
            loaded = tf1.saved_model.load(session, ["serve"], path)
    signature = loaded.signature_def["serving_default"]
    fetches = [tensor.name for tensor in signature.outputs.values()]
    run = session.make_callable(fetches, [signature.inputs["data"].name])
    return lambda images: run(np.array(images, object))


def _milliseconds(
    runs: dict[str, Callable[[list[bytes]], object]], images: list[bytes], repeats: int
) -> dict[str, float]:
    least = dict.fromkeys(runs, float("inf"))
    for run in runs.values():
        run(images)
    for _ in range(ROUNDS):
        for name, run in runs.items():
            started = time.process_time()
            for _ in range(repeats):
                run(images)
            spent = (time.process_time() - started) / repeats / len(images) * 1000
            least[name] = min(least[name], spent)
    return least


if __name__ == "__main__":
    sys.exit(main())
