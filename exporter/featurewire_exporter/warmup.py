"""Warm-up records: requests that TensorFlow Serving replays before a version is AVAILABLE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import tensorflow as tf

from featurewire_exporter import photos
from featurewire_exporter._tfs import predict_pb2, prediction_log_pb2, types_pb2
from featurewire_exporter.preprocess import PreprocessConfig

FILE = "tf_serving_warmup_requests"
MAX_RECORDS = 1000
"""TensorFlow Serving refuses a file of more."""

_LARGE = (3000, 4000)
_USUAL = (480, 640)


def write_warmup(path: Path, batch_sizes: Sequence[int], config: PreprocessConfig) -> None:
    """Write a TFRecord file of `PredictionLog`: one a batch size, and one with a large photo."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for images in warmup_batches(batch_sizes, config):
            writer.write(_log(images).SerializeToString())


def warmup_batches(
    batch_sizes: Sequence[int], config: PreprocessConfig
) -> Iterator[Sequence[bytes]]:
    """JPEGs within the limits of `config`: a batch of each size, then a large photo alone."""
    usual = _within(_USUAL, config)
    for size in batch_sizes:
        yield [usual] * size
    yield [_within(_LARGE, config)]


def _within(size: tuple[int, int], config: PreprocessConfig) -> bytes:
    height, width = size
    while height * width > config.max_pixels:
        height, width = max(height // 2, 1), max(width // 2, 1)
    encoded = photos.jpeg(height, width, seed=0)
    if len(encoded) > config.max_image_bytes and height * width > 1:
        return _within((max(height // 2, 1), max(width // 2, 1)), config)
    return encoded


def _log(images: Sequence[bytes]) -> prediction_log_pb2.PredictionLog:
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = "serving_default"
    tensor = request.inputs["image_bytes"]
    tensor.dtype = types_pb2.DT_STRING
    tensor.tensor_shape.dim.add(size=len(images))
    tensor.string_val.extend(images)
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(request)
    return log
