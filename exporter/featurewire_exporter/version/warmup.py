"""Warm-up records: requests that TensorFlow Serving replays before a version is AVAILABLE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import tensorflow as tf

from featurewire_exporter import photos
from featurewire_exporter._tfs.prediction_log_pb2 import PredictionLog
from featurewire_exporter.errors import ExportError
from featurewire_exporter.preprocess import PreprocessConfig
from featurewire_exporter.version.manifest import EXTRAS

FILE = "tf_serving_warmup_requests"
MAX_RECORDS = 1000
"""TensorFlow Serving refuses a file of more."""

_LARGE = (3000, 4000)
_USUAL = (480, 640)


def write_warmup(
    path: Path,
    batch_sizes: Sequence[int],
    config: PreprocessConfig,
    *,
    bridges: Sequence[str] = (),
) -> None:
    """Write a TFRecord file of `PredictionLog`: one a batch size, and one with a large photo.

    `bridges`: signatures that share the network, so that one image each warms them.
    """
    with tf.io.TFRecordWriter(str(path)) as writer:
        for images in warmup_batches(batch_sizes, config):
            writer.write(_log("serving_default", images).SerializeToString())
        for signature in bridges:
            writer.write(_log(signature, images[:1]).SerializeToString())


def warmup_batches(
    batch_sizes: Sequence[int], config: PreprocessConfig
) -> Iterator[Sequence[bytes]]:
    """JPEGs within the limits of `config`: a batch of each size, then a large photo alone."""
    limits = {"max_pixels": config.max_pixels, "max_image_bytes": config.max_image_bytes}
    usual = photos.jpeg_within(_USUAL, **limits, seed=0)
    for size in batch_sizes:
        yield [usual] * size
    yield [photos.jpeg_within(_LARGE, **limits, seed=0)]


def count_records(version_directory: Path) -> int:
    """The warm-up records of a published version. Raises `ExportError` where they are damaged."""
    path = version_directory / EXTRAS / FILE
    if not path.exists():
        return 0
    try:
        return sum(1 for _ in tf.data.TFRecordDataset(str(path)))
    except tf.errors.OpError as error:
        raise ExportError(f"{path} is damaged; export the version again") from error


def _log(signature: str, images: Sequence[bytes]) -> PredictionLog:
    log = PredictionLog()
    request = log.predict_log.request
    request.model_spec.signature_name = signature
    tensor = request.inputs["image_bytes"]
    tensor.dtype = tf.string.as_datatype_enum
    tensor.tensor_shape.dim.add(size=len(images))
    tensor.string_val.extend(images)
    return log
