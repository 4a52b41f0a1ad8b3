"""Warm-up records are replayed before a version answers, and their faults are reported."""

from __future__ import annotations

import logging
from pathlib import Path

import grpc
import pytest
import tensorflow as tf

from featurewire_server._tfs.prediction_log_pb2 import PredictionLog
from featurewire_server.batching.config import BatchingConfig
from featurewire_server.common.errors import ServingError
from featurewire_server.engines.engine import EngineConfig
from featurewire_server.models import warmup
from featurewire_server.models.loading import Loader
from featurewire_server.models.warmup import MAX_RECORDS, RECORDS, replayed_by, warm_up
from tests.server.support import (
    JPEG,
    FakeEngine,
    code_and_text,
    config,
    direct,
    model,
    predict_request,
    served,
    spec,
    unbatched,
)
from tests.support.models import write_tiny_model


def record(rows: int = 1, **options) -> bytes:
    log = PredictionLog()
    request = predict_request(spec("tiny", **options), image_bytes=[JPEG] * rows)
    log.predict_log.request.CopyFrom(request)
    return log.SerializeToString()


def write_records(version: Path, *records: bytes) -> Path:
    file = version / RECORDS
    file.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for one in records:
            writer.write(one)
    return version


class Recorder(FakeEngine):
    """Answers like the tiny model, and records the number of rows."""

    def __init__(self, real) -> None:
        super().__init__()
        self.signatures = real.signatures
        self.rows: list[int] = []
        self._real = real

    def run(self, signature_name, inputs, outputs, patience=None):
        self.rows.append(len(inputs["image_bytes"]))
        return self._real.run(signature_name, inputs, outputs)


@pytest.fixture
def version(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path, 1)


@pytest.fixture
def recorder(version: Path) -> Recorder:
    from featurewire_server.engines.tensorflow import TensorFlowEngine

    return Recorder(TensorFlowEngine(version, EngineConfig()))


def warm(recorder: Recorder, version: Path, **options) -> int:
    return warm_up(recorder.signatures, replayed_by(direct(recorder)), version, **options)


def test_every_record_is_replayed_as_often_as_told(version: Path, recorder: Recorder) -> None:
    write_records(version, record(1), record(4))
    assert warm(recorder, version, iterations=2) == 2
    assert recorder.rows == [1, 1, 4, 4]


def test_warming_up_says_how_far_it_is(version, recorder, caplog, monkeypatch) -> None:
    monkeypatch.setattr(warmup, "PROGRESS_SECONDS", 0.0)
    write_records(version, *[record()] * 3)
    with caplog.at_level(logging.INFO):
        warm(recorder, version, name="tiny version 1")
    *progress, done = caplog.messages
    assert progress == [
        "tiny version 1: warming up with 3 records",
        "tiny version 1: warming up, record 2 of 3",
        "tiny version 1: warming up, record 3 of 3",
    ]
    assert done.startswith("tiny version 1: 3 warm-up records, ")


def test_a_version_without_records_is_not_warmed(version: Path, recorder: Recorder) -> None:
    assert warm(recorder, version) == 0
    assert recorder.rows == []


@pytest.mark.parametrize(
    ("records", "text"),
    [
        ([record(signature="none")], 'warm-up record 1 failed: Serving signature key "none"'),
        ([record(), b""], "warm-up record 2 failed: the record holds no request"),
        ([b"\xff\xff\xff"], "holds a record that is not a PredictionLog"),
    ],
)
def test_a_wrong_record_fails_the_version(version, recorder, records, text: str) -> None:
    write_records(version, *records)
    with pytest.raises(ServingError, match=text):
        warm(recorder, version)


def test_more_records_than_tensorflow_serving_takes_are_refused(version, recorder) -> None:
    write_records(version, *[record()] * (MAX_RECORDS + 1))
    with pytest.raises(ServingError, match=r"exceeds the maximum \(1000\)"):
        warm(recorder, version)


def test_a_cut_file_is_named(version: Path, recorder: Recorder) -> None:
    file = write_records(version, record(), record()) / RECORDS
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(ServingError, match=str(file)):
        warm(recorder, version)


def test_a_file_without_a_whole_record_is_warned_of(version, recorder, caplog) -> None:
    file = write_records(version) / RECORDS
    file.write_bytes(b"garbage")
    assert warm(recorder, version) == 0
    assert f"{file} holds no warm-up record" in caplog.text


def test_a_version_whose_warm_up_fails_is_closed_and_shows_why(version: Path) -> None:
    write_records(version, record(signature="none"))
    good = write_tiny_model(version.parent / "good", 1).parent
    with served(config(model("good", good))) as stub:
        code, text = code_and_text(
            lambda: stub.reload(config(model("good", good), model("tiny", version.parent)))
        )
        assert code is grpc.StatusCode.UNKNOWN
        assert "warm-up record 1 failed" in text
        status = stub.status().model_version_status[0].status
        assert "warm-up record 1 failed" in status.error_message
        assert status.error_code == grpc.StatusCode.FAILED_PRECONDITION.value[0]


def test_a_record_larger_than_a_batch_is_skipped(version: Path) -> None:
    write_records(version, record(4), record(1))
    with served(
        config(model("tiny", version.parent)), batching=BatchingConfig(max_batch_size=2)
    ) as stub:
        assert stub.states() == {1: "AVAILABLE"}


def test_warm_up_can_be_switched_off(version: Path) -> None:
    write_records(version, b"\xff")
    engine = EngineConfig(engine="tensorflow")
    runner = Loader(engine=engine, scheduler=unbatched(), warm_up=False)("tiny", 1, version)
    assert runner.signatures
