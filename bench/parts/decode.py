"""CPU time to turn one JPEG into the network's input.

`served` is the published graph, with its limits, its isolation of bad images and its antialiased
resize. `plain TensorFlow` is `decode_image` and `tf.image.resize`, as in most exports. `the same in
TensorFlow` resizes with antialias. Both run in a `map_fn`, in which one bad image fails the
request. `its ops alone` are the decode and the resize of the served graph in such a `map_fn`. The
difference from `served` is the cost of headers, limits and isolation, half of it per request.

Pillow and OpenCV are the usual libraries of clients. `JPEG codes alone` decodes at one eighth of
the size, which is the lower limit for reading a JPEG. The decode rate is in bytes of JPEG.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench._photos import SAMPLES, covering, jpeg, photos
from bench.results import Figure

SIZE = 299
SIZES = {"640x427": (640, 427), "4000x3000": (4000, 3000)}
TITLES = {
    "served": "served",
    "plain": "plain TensorFlow",
    "same": "the same in TensorFlow",
    "alone": "its ops alone",
    "floor": "JPEG codes alone",
}
Run = Callable[[list[bytes]], object]


def measure(quick: bool) -> list[Figure]:
    ways: dict[str, Run] = {TITLES[name]: run for name, run in _tensorflow().items()}
    ways |= {"Pillow": _each(_pillow), "OpenCV": _each(_opencv)}
    pictures = [picture for _, picture in photos(SAMPLES)]
    figures = []
    for size, (width, height) in SIZES.items():
        some = pictures[:3] if quick else pictures
        images = [jpeg(covering(picture, width, height)) for picture in some]
        for batch in (1, 8):
            if batch == 8 and quick:
                continue
            rounds = 2 if width > 640 or quick else 8
            figures += _compared(ways, f"{size}, {batch} per request", images, batch, rounds)
    return figures


def _compared(
    ways: dict[str, Run], table: str, images: list[bytes], batch: int, rounds: int
) -> list[Figure]:
    """Decode every photo in each round; the libraries take turns after each photo."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        spent = dict.fromkeys(ways, 0.0)
        for image in images:
            for name, run in ways.items():
                before = time.process_time()
                run([image] * batch)
                spent[name] += time.process_time() - before
        if turn:
            for name, seconds in spent.items():
                found[name].append(1000 * seconds / len(images) / batch)
    megabytes = sum(map(len, images)) / len(images) / 1e6
    return [
        Figure(
            table=table,
            name=name,
            unit="ms",
            values=values,
            peers={
                "of plain TensorFlow": TITLES["plain"],
                "of the same in TensorFlow": TITLES["same"],
                "of its ops alone": TITLES["alone"],
            },
            more={"MB/s": 1000 * megabytes / float(np.median(values))},
        )
        for name, values in found.items()
    ]


def _tensorflow() -> dict[str, Callable[[list[bytes]], object]]:
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

    def alone(data: tf.Tensor) -> tf.Tensor:
        # Decode at the same scale as the served graph: one eighth for these large pictures.
        large = tf.io.extract_jpeg_shape(data)[0] >= 8 * SIZE
        image = tf.cond(
            large,
            lambda: tf.io.decode_jpeg(data, channels=3, ratio=8, dct_method="INTEGER_ACCURATE"),
            lambda: tf.io.decode_jpeg(data, channels=3),
        )
        height, width, _ = tf.unstack(tf.shape(image))
        lines = _scaled(tf.reshape(image, tf.stack([1, height, 1, width * 3])), height)
        lines = tf.transpose(tf.reshape(lines, tf.stack([SIZE, width, 3])), [1, 0, 2])
        lines = _scaled(tf.reshape(lines, tf.stack([1, width, 1, SIZE * 3])), width)
        return tf.transpose(tf.reshape(lines, [SIZE, SIZE, 3]), [1, 0, 2]) * (1 / 255)

    def _scaled(lines: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        return tf.raw_ops.ScaleAndTranslate(
            images=lines,
            size=[SIZE, 1],
            scale=tf.stack([SIZE / tf.cast(length, tf.float32), 1.0]),
            translation=[0.0, 0.0],
            kernel_type="triangle",
            antialias=True,
        )

    def floor(data: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.io.decode_jpeg(data, channels=3, ratio=8)[0, 0], tf.float32)

    graphs = {
        "served": build_preprocess(PreprocessConfig(height=SIZE, width=SIZE)),
        "plain": each(plain),
        "same": each(same),
        "alone": each(alone),
        "floor": each(floor),
    }
    return {name: _session(graph) for name, graph in graphs.items()}


def _session(graph: Callable[..., Sequence[Any]]) -> Callable[[list[bytes]], object]:
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


def _each(one: Callable[[bytes], object]) -> Run:
    return lambda images: [one(image) for image in images]


def _pillow(image: bytes) -> object:
    from PIL import Image

    with Image.open(io.BytesIO(image)) as picture:
        small = picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return np.asarray(small, np.float32) / 255


def _opencv(image: bytes) -> object:
    import cv2

    decoded = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR_RGB)
    small = cv2.resize(decoded, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return np.float32(small) / 255
