"""Replays the warm-up records of a version, so that its first caller is not the one who waits."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from . import inference, predict
from ._tfs.prediction_log_pb2 import PredictionLog
from .batch_queue import TaskTooLarge
from .errors import ServingError, invalid_argument
from .servable import Runner

log = logging.getLogger(__name__)

RECORDS = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000


def warm_up(runner: Runner, path: Path, *, iterations: int = 1) -> int:
    """Replay the records under the version directory `path`; returns how many there were.

    Raises ServingError when a record cannot be read or its request fails: a version that cannot
    answer its own warm-up requests would not answer its callers either.
    """
    count = 0
    for record in records(path / RECORDS):
        count += 1
        if count > MAX_RECORDS:
            raise invalid_argument(
                f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path / RECORDS}"
            )
        for _ in range(max(iterations, 1)):
            try:
                _replay(runner, record)
            except TaskTooLarge as error:
                # TensorFlow Serving fails the version; no caller could send this request either.
                log.warning("warm-up record %d skipped: %s", count, error.message)
            except ServingError as error:
                raise ServingError(
                    error.code, f"warm-up record {count} failed: {error.message}"
                ) from error
    file = path / RECORDS
    if not count and file.is_file() and file.stat().st_size:
        # TensorFlow's reader takes a file that ends within its first record for an empty one.
        log.warning("%s holds no warm-up record", file)
    return count


def records(file: Path) -> Iterator[PredictionLog]:
    """The records of a TFRecord file; none if there is no such file."""
    if not file.is_file():
        return
    import tensorflow as tf

    reader = tf.compat.v1.io.tf_record_iterator(str(file))
    while True:
        try:
            data = next(reader)
        except StopIteration:
            return
        except tf.errors.OpError as error:
            raise invalid_argument(
                f"cannot read warm-up records {file}: {error.message}"
            ) from error
        try:
            yield PredictionLog.FromString(data)
        except Exception as error:
            raise invalid_argument(f"{file} holds a record that is no PredictionLog") from error


def _replay(runner: Runner, record: PredictionLog) -> None:
    kind = record.WhichOneof("log_type")
    if kind == "predict_log":
        predict.run(runner, record.predict_log.request)
    elif kind == "classify_log":
        inference.classify(runner, record.classify_log.request)
    elif kind == "regress_log":
        inference.regress(runner, record.regress_log.request)
    elif kind == "multi_inference_log":
        inference.multi_inference(runner, record.multi_inference_log.request)
    else:
        raise invalid_argument("the record holds no request")
