"""The hand-written wire format agrees with the generated classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurewire._errors import ResponseError
from featurewire._tfs import model_pb2, predict_pb2, types_pb2
from featurewire._wire.predict import Codec, Names, model_spec, varint
from featurewire._wire.replies import read_predict_reply, read_strings

NAMES = Names(signature="serving_default", input="image_bytes", output="features", status="status")

TENSORS: dict[str, Any] = {"output": "features", "status": "status"}

sizes = st.integers(0, 40) | st.sampled_from([127, 128, 16383, 16384, 70_000])
images = st.lists(sizes.map(lambda size: b"\xab" * size), max_size=20)


@settings(max_examples=40)
@given(
    images,
    st.text(min_size=1, max_size=200),
    st.one_of(st.none(), st.integers(0, 2**40)),
    st.booleans(),
)
def test_a_request_is_what_the_generated_class_reads(images, model, version, status):
    names = Names(
        signature="sig", input="bytes" * 50, output="out", status="status" if status else None
    )
    data = Codec(model_spec(model, version=version, signature="sig"), names).build(images)
    request = predict_pb2.PredictRequest.FromString(data)
    expected = predict_pb2.PredictRequest()
    expected.model_spec.CopyFrom(model_spec(model, version=version, signature="sig"))
    expected.output_filter.extend(["out", "status"] if status else ["out"])
    tensor = expected.inputs["bytes" * 50]
    tensor.dtype = types_pb2.DT_STRING
    tensor.tensor_shape.dim.add(size=len(images))
    tensor.string_val.extend(images)
    assert request == expected


@given(st.integers(0, 2**64 - 1))
def test_a_varint_is_what_the_generated_class_reads(number):
    spec = model_pb2.ModelSpec()
    value = varint(1 << 3) + varint(number)
    spec.version.MergeFromString(value)
    assert spec.version.value % 2**64 == number


def reply_of(vectors, codes, *, content):
    reply = predict_pb2.PredictResponse()
    reply.model_spec.name = "m"
    reply.model_spec.version.value = 5
    features, status = reply.outputs["features"], reply.outputs["status"]
    features.dtype, status.dtype = types_pb2.DT_FLOAT, types_pb2.DT_INT32
    for size in vectors.shape:
        features.tensor_shape.dim.add(size=size)
    status.tensor_shape.dim.add(size=len(codes))
    if content:
        features.tensor_content = vectors.tobytes()
        status.tensor_content = np.array(codes, "<i4").tobytes()
    else:
        features.float_val.extend(vectors.ravel().tolist())
        status.int_val.extend(codes)
    return reply


@given(
    st.integers(1, 12),
    st.integers(1, 40),
    st.booleans(),
    st.data(),
)
def test_a_reply_is_read_as_the_generated_class_wrote_it(count, dimension, content, data):
    codes = data.draw(st.lists(st.integers(-3, 200), min_size=count, max_size=count))
    seed = data.draw(st.integers(0, 1000))
    vectors = np.random.default_rng(seed).normal(size=(count, dimension)).astype("<f4")
    reply = reply_of(vectors, codes, content=content).SerializeToString()
    rows = read_predict_reply(reply, **TENSORS, count=count)
    assert rows.version == 5
    assert np.array_equal(rows.vectors, vectors)
    assert set(rows.reasons) == {row for row, code in enumerate(codes) if code}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_is_no_vector(value):
    vectors = np.ones((3, 5), "<f4")
    vectors[1, 4] = value
    reply = reply_of(vectors, [0, 0, 0], content=True).SerializeToString()
    assert read_predict_reply(reply, **TENSORS, count=3).reasons == {1: "not_finite"}


def test_the_largest_numbers_are_finite():
    vectors = np.full((2, 5), np.finfo("<f4").max)
    reply = reply_of(vectors, [0, 0], content=True).SerializeToString()
    assert read_predict_reply(reply, **TENSORS, count=2).reasons == {}


def test_floats_that_are_not_packed_are_read_too():
    vectors = np.arange(6, dtype="<f4").reshape(2, 3)
    reply = reply_of(vectors, [0, 0], content=False)
    tensor = reply.outputs["features"]
    del tensor.float_val[:]
    head = tensor.SerializeToString()
    unpacked = b"".join(varint(5 << 3 | 5) + value.tobytes() for value in vectors.ravel())
    body = b"\x0a\x08features\x12" + varint(len(head) + len(unpacked)) + head + unpacked
    del reply.outputs["features"]
    data = reply.SerializeToString() + b"\x0a" + varint(len(body)) + body
    assert predict_pb2.PredictResponse.FromString(data).outputs["features"].float_val[5] == 5
    assert np.array_equal(read_predict_reply(data, **TENSORS, count=2).vectors, vectors)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_reply_or_a_response_error(data):
    with pytest.raises(ResponseError):
        read_predict_reply(data, **TENSORS, count=1)


@given(st.integers(0, 200), st.data())
def test_a_reply_cut_off_anywhere_is_never_a_wrong_vector(seed, data):
    vectors = np.random.default_rng(seed).normal(size=(3, 7)).astype("<f4")
    reply = reply_of(vectors, [0, 0, 0], content=bool(seed % 2)).SerializeToString()
    cut = data.draw(st.integers(0, len(reply) - 1))
    try:
        rows = read_predict_reply(reply[:cut], **TENSORS, count=3)
    except ResponseError:
        return
    # The outputs precede the cut, so only the version may be missing.
    assert np.array_equal(rows.vectors, vectors)


def test_unknown_fields_are_passed_over():
    vectors = np.ones((1, 2), "<f4")
    reply = reply_of(vectors, [0], content=False).SerializeToString()
    extra = varint(99 << 3) + varint(7) + varint(98 << 3 | 1) + b"12345678"
    assert read_predict_reply(extra + reply, **TENSORS, count=1).version == 5


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.booleans())
def test_strings_are_read_from_either_field(values, content):
    message = predict_pb2.PredictResponse()
    tensor = message.outputs["manifest"]
    tensor.dtype = types_pb2.DT_STRING
    tensor.tensor_shape.dim.add(size=len(values))
    if content:
        tensor.tensor_content = b"".join([*(varint(len(each)) for each in values), *values])
    else:
        tensor.string_val.extend(values)
    assert read_strings(message.SerializeToString(), "manifest") == values


@pytest.mark.parametrize("content", [b"\x01", b"\x01ab", b"\xff" * 9, b"\x80"])
def test_lying_string_content_is_a_response_error(content):
    message = predict_pb2.PredictResponse()
    tensor = message.outputs["manifest"]
    tensor.dtype, tensor.tensor_content = types_pb2.DT_STRING, content
    tensor.tensor_shape.dim.add(size=1)
    with pytest.raises(ResponseError, match="does not have the 1 strings"):
        read_strings(message.SerializeToString(), "manifest")
