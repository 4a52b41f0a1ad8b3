"""The fast path for replies with the same layout as the last one gives the parser's result."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from featurewire._errors import ResponseError
from featurewire._tfs import predict_pb2, types_pb2
from featurewire._wire.replies import ReplyReader, read_predict_reply

TENSORS: dict[str, Any] = {"output": "features", "status": "status"}


def reply(
    *,
    count: int = 3,
    dimension: int = 5,
    version: int = 1,
    codes: tuple[int, ...] | None = None,
    content: bool = False,
    seed: int = 0,
    nan_row: int | None = None,
) -> bytes:
    message = predict_pb2.PredictResponse()
    message.model_spec.name = "m"
    message.model_spec.version.value = version
    features, status = message.outputs["features"], message.outputs["status"]
    features.dtype, status.dtype = types_pb2.DT_FLOAT, types_pb2.DT_INT32
    for size in (count, dimension):
        features.tensor_shape.dim.add(size=size)
    status.tensor_shape.dim.add(size=count)
    vectors = np.random.default_rng(seed).random((count, dimension), np.float32)
    if nan_row is not None:
        vectors[nan_row] = np.nan
    if content:
        features.tensor_content = vectors.tobytes()
    else:
        features.float_val.extend(vectors.ravel().tolist())
    status.int_val.extend(codes or [0] * count)
    return message.SerializeToString(deterministic=True)


CHANGES: list[dict] = [
    {},
    {"seed": 1},
    {"seed": 2, "version": 2},
    {"seed": 3, "codes": (0, 4, 0)},
    {"seed": 4},
    {"seed": 5, "nan_row": 1},
    {"seed": 6, "content": True},
    {"seed": 7, "content": True},
    {"seed": 8, "count": 5, "dimension": 3},
    {"seed": 9},
    {"seed": 10, "version": 300},
    {"seed": 11, "count": 1, "dimension": 15},
    {"seed": 12, "count": 1, "dimension": 15},
]


def test_whatever_the_reply_before_was_a_reply_reads_the_same():
    for before in CHANGES:
        for change in CHANGES:
            read = ReplyReader(**TENSORS)
            read(reply(**before), count=before.get("count", 3))
            data, count = reply(**change), change.get("count", 3)
            got = read(data, count=count)
            wanted = read_predict_reply(data, count, **TENSORS)
            assert (got.version, got.reasons) == (wanted.version, wanted.reasons)
            assert np.array_equal(got.vectors, wanted.vectors, equal_nan=True)


def test_a_reply_to_another_number_of_images_is_still_refused():
    read = ReplyReader(**TENSORS)
    read(reply(), count=3)
    with pytest.raises(ResponseError, match="3 rows for 4 images"):
        read(reply(), count=4)


def outcome(read, data: bytes) -> object:
    try:
        rows = read(data, count=3)
    except ResponseError as error:
        return str(error)
    return rows.version, rows.reasons, rows.vectors.tobytes()


def test_a_reply_torn_anywhere_fares_as_without_the_one_before():
    read = ReplyReader(**TENSORS)
    data = reply()
    read(data, count=3)
    outcomes = [outcome(read, data[:cut]) for cut in range(len(data))]
    assert outcomes == [
        outcome(partial(read_predict_reply, **TENSORS), data[:cut]) for cut in range(len(data))
    ]
    assert sum(isinstance(each, str) for each in outcomes) > len(data) / 2


def test_the_vectors_of_two_replies_share_no_memory():
    read = ReplyReader(**TENSORS)
    first = read(reply(seed=1), count=3).vectors
    second = read(reply(seed=2), count=3).vectors
    assert not np.shares_memory(first, second)
    assert not np.array_equal(first, second)
