"""The memory limit covers answers, because a small request may have a large answer."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from featurewire._tfs import types_pb2
from featurewire._tfs.meta_graph_pb2 import SignatureDef
from featurewire_server.messages.predict import output_bytes
from tests.server.split_model import SIZE
from tests.server.support import (
    code_and_text,
    config,
    model,
    predict_request,
    served,
    spec,
)
from tests.support.waiting import wait_until

ROW = SIZE * SIZE * 3 * 4
LIMIT = 100 * ROW


@pytest.fixture(scope="module")
def made(split_base_path: Path):
    with served(config(model("m", split_base_path)), limit=LIMIT) as made:
        yield made


def call(made, signature: str, rows: int):
    return made.predict(predict_request(spec("m", signature=signature), image_bytes=[b""] * rows))


def test_an_answer_over_the_limit_is_refused_before_it_is_computed(made) -> None:
    code, text = code_and_text(lambda: call(made, "preprocess", 101))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "--max_inflight_bytes" in text
    wait_until(lambda: made.api.admission.held == 0)


@pytest.mark.slow
def test_what_counts_is_the_answer_not_the_rows(made) -> None:
    assert len(call(made, "preprocess", 90).outputs["status"].int_val) == 90
    # A thousand vectors take less memory than a hundred pictures.
    assert len(call(made, "serving_default", 1000).outputs["status"].int_val) == 1000
    wait_until(lambda: made.api.admission.held == 0)


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [
        (types_pb2.DT_FLOAT, [-1, 8], 7 * 8 * 4),
        (types_pb2.DT_INT32, [-1], 7 * 4),
        (types_pb2.DT_DOUBLE, [3, 5], 3 * 5 * 8),
        (types_pb2.DT_FLOAT, [-1, -1], 0),
        (types_pb2.DT_FLOAT, [], 0),
    ],
)
def test_the_size_that_a_signature_tells(dtype, shape, size) -> None:
    signature = SignatureDef()
    info = signature.outputs["y"]
    info.dtype = dtype
    for length in shape:
        info.tensor_shape.dim.add(size=length)
    assert output_bytes(signature, ["y"], 7) == size
