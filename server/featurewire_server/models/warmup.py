"""Replays the warm-up records of a version, so that its first caller does not have to wait."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from featurewire._tfs.meta_graph_pb2 import SignatureDef
from featurewire_server._tfs.prediction_log_pb2 import PredictionLog
from featurewire_server.batching.runner import Runner
from featurewire_server.batching.task import TaskTooLarge, Terms
from featurewire_server.common import loop
from featurewire_server.common.errors import ServingError, invalid_argument
from featurewire_server.engines.engine import Engine
from featurewire_server.messages import inference, predict

log = logging.getLogger(__name__)

RECORDS = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000
MAX_PAUSE = 1.0
"""Seconds."""
PROGRESS_SECONDS = 5.0
"""Interval between log lines about the progress of warm-up."""

_HEAD_BYTES, _TAIL_BYTES = 12, 4
"""Around the data of a TFRecord: its length in 8 bytes and a checksum; another checksum."""

Replay = Callable[[predict.Run], Mapping[str, np.ndarray]]


def replayed_by(runner: Runner) -> Replay:
    """Replays a request like a caller's: through the runner, with batching."""
    return lambda run: loop.run(runner.run(run, Terms()))


def first_rows(engine: Engine) -> Replay:
    """Replays only the first row of each request, to disturb other versions less.

    For engines whose rows are independent. The replay runs in this thread, because the batch
    threads are for callers, and pauses after each run.

    One row is enough, because the first run of a signature optimises its graph, which takes
    seconds. After that, the first batch of another size takes only a fifth of a second longer,
    which does not justify computing large batches here.
    """

    def replay(run: predict.Run) -> dict[str, np.ndarray]:
        started = time.monotonic()
        first = {name: array[:1] for name, array in run.inputs.items()}
        found = engine.run(run.signature_name, first, run.outputs)
        time.sleep(min(time.monotonic() - started, MAX_PAUSE))  # leaves half of the time to callers
        return found

    return replay


def warm_up(
    signatures: Mapping[str, SignatureDef],
    run: Replay,
    path: Path,
    *,
    iterations: int = 1,
    name: str = "",
) -> int:
    """Replay the records under the version directory `path`, and return their number.

    Raises ServingError if a record cannot be read or its request fails, because a version that
    cannot answer its warm-up requests would also fail its callers.
    """
    count, started = 0, time.monotonic()
    logged_at = started
    total = _count(path / RECORDS)
    for record in records(path / RECORDS):
        count += 1
        if count == 1:
            log.info("%s: warming up with %d records", name or path, total)
        elif time.monotonic() - logged_at > PROGRESS_SECONDS:
            logged_at = time.monotonic()
            log.info("%s: warming up, record %d of %d", name or path, count, total)
        if count > MAX_RECORDS:
            raise invalid_argument(
                f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path / RECORDS}"
            )
        for _ in range(max(iterations, 1)):
            try:
                _replay(signatures, run, record)
            except TaskTooLarge as error:
                # TensorFlow Serving refuses such a version. We skip the record, because callers
                # cannot send this request either.
                log.warning("warm-up record %d skipped: %s", count, error.message)
            except ServingError as error:
                raise ServingError(
                    error.code, f"warm-up record {count} failed: {error.message}"
                ) from error
    if count:
        log.info("%s: %d warm-up records, %.1f s", name or path, count, time.monotonic() - started)
    file = path / RECORDS
    if not count and file.is_file() and file.stat().st_size:
        # TensorFlow's reader treats a file that ends within its first record as empty.
        log.warning("%s holds no warm-up record", file)
    return count


def records(file: Path) -> Iterator[PredictionLog]:
    """The records of a TFRecord file, or nothing if the file does not exist.

    Checksums are not compared, because the manifest of an exported version has one of the file.
    Raises INVALID_ARGUMENT for a record that cannot be read.
    """
    whole = _count(file)
    if not whole:
        return
    with file.open("rb") as stream:
        for _ in range(whole):
            length = int.from_bytes(stream.read(_HEAD_BYTES)[:8], "little")
            data = stream.read(length)
            stream.seek(_TAIL_BYTES, os.SEEK_CUR)
            try:
                yield PredictionLog.FromString(data)
            except Exception as error:
                raise invalid_argument(
                    f"{file} holds a record that is not a PredictionLog"
                ) from error
        if stream.read(1):
            raise invalid_argument(f"cannot read warm-up records {file}: truncated record")


def _count(file: Path) -> int:
    """The number of complete records in a TFRecord file, by the record lengths."""
    count = 0
    with contextlib.suppress(OSError), file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        while len(head := stream.read(_HEAD_BYTES)) == _HEAD_BYTES:
            length = int.from_bytes(head[:8], "little")
            if length > size or stream.seek(length + _TAIL_BYTES, os.SEEK_CUR) > size:
                break
            count += 1
    return count


def _replay(signatures: Mapping[str, SignatureDef], run: Replay, record: PredictionLog) -> None:
    """Run a record's request and build its result, as for a caller."""
    kind = record.WhichOneof("log_type")
    if kind == "predict_log":
        run(predict.plan(signatures, record.predict_log.request))
    elif kind in ("classify_log", "regress_log"):
        method = inference.CLASSIFY if kind == "classify_log" else inference.REGRESS
        planned = inference.plan(signatures, method, getattr(record, kind).request)
        method.result(run(planned), planned.examples)
    elif kind == "multi_inference_log":
        request = record.multi_inference_log.request
        runs = inference.plan_multi_inference(signatures, request)
        for task, planned in zip(request.tasks, runs, strict=True):
            inference.result_of(task, planned, run(planned), 0)
    else:
        raise invalid_argument("the record holds no request")
