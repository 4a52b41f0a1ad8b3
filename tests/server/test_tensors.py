"""TensorProto to and from numpy: equal to TensorFlow's codec, and strict with invalid input."""

from __future__ import annotations

import contextlib
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from featurewire._tfs import types_pb2
from featurewire._tfs.tensor_pb2 import TensorProto
from featurewire_server.common.errors import ServingError
from featurewire_server.messages import tensors

DTYPES = [
    *map(np.dtype, ["f4", "f8", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]),
    *map(np.dtype, ["?", "c8", "c16"]),
    np.dtype(ml_dtypes.bfloat16),
]


def arrays(dtype: np.dtype) -> st.SearchStrategy[np.ndarray]:
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
    if dtype == ml_dtypes.bfloat16:
        return hnp.arrays(np.uint16, shapes).map(lambda array: array.view(dtype))
    return hnp.arrays(dtype, shapes)


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return (
        one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    )


def equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether values are equal, with every NaN equal to every other."""
    if one.dtype == ml_dtypes.bfloat16:
        one, other = one.astype("f4"), other.astype("f4")
    return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind in "fc")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(deadline=None, max_examples=30)
@given(data=st.data(), content=st.booleans())
def test_every_dtype_survives_and_agrees_with_tensorflow(dtype, data, content) -> None:
    import tensorflow as tf
    from tensorflow.core.framework import tensor_pb2

    array = data.draw(arrays(dtype))
    encoded = tensors.encode(array, content=content)
    if not (array.dtype.kind == "f" and np.isnan(array.astype("f8")).any()):
        assert same(tensors.decode("x", encoded), array)
    theirs = tf.make_ndarray(tensor_pb2.TensorProto.FromString(encoded.SerializeToString()))
    assert equal(theirs, array)
    back = TensorProto.FromString(tf.make_tensor_proto(array).SerializeToString())
    assert equal(tensors.decode("x", back), array)


@settings(deadline=None)
@given(
    hnp.arrays(object, hnp.array_shapes(min_dims=0, max_dims=2, min_side=0), elements=st.binary()),
    st.booleans(),
)
def test_strings_survive(array: np.ndarray, content: bool) -> None:
    decoded = tensors.decode("x", tensors.encode(array, content=content))
    assert decoded.shape == array.shape
    assert decoded.tolist() == array.tolist()


def test_nan_and_infinity_keep_their_bits() -> None:
    array = np.array([np.nan, -np.inf, -0.0], np.float32)
    for content in (False, True):
        assert same(tensors.decode("x", tensors.encode(array, content=content)), array)


def proto(dtype: Any, shape: list[int], **values: Any) -> TensorProto:
    made = TensorProto(dtype=dtype, **values)
    for size in shape:
        made.tensor_shape.dim.add(size=size)
    return made


F, S, U8, BOOL = types_pb2.DT_FLOAT, types_pb2.DT_STRING, types_pb2.DT_UINT8, types_pb2.DT_BOOL
BIG = 1 << 40

LIARS = {
    "a huge string shape": proto(S, [BIG], string_val=[b"a"]),
    "a huge shape and no values": proto(F, [BIG]),
    "a huge shape and one value": proto(F, [BIG], float_val=[1]),
    "a large shape and one value": proto(F, [1 << 30], float_val=[1]),
    "a large shape and one long string": proto(S, [1 << 10], string_val=[bytes(1 << 20)]),
    "an overflowing shape": proto(F, [1 << 62, 1 << 62, 4], float_val=[1]),
    "an overflowing shape with a zero": proto(F, [1 << 62, 1 << 62, 0]),
    "a negative dimension": proto(F, [-1], float_val=[1]),
    "two negative dimensions": proto(F, [-1, -1], float_val=[1]),
    "too many dimensions": proto(F, [1] * 300, float_val=[1]),
    "content too short": proto(F, [2], tensor_content=b"1234567"),
    "content too long": proto(F, [1], tensor_content=b"12345"),
    "lengths of strings beyond the content": proto(S, [1], tensor_content=b"\x02a"),
    "lengths of strings short of the content": proto(S, [1], tensor_content=b"\x01ab"),
    "fewer lengths of strings than the shape says": proto(S, [3], tensor_content=b"\x00\x00"),
    "a length that does not end": proto(S, [1], tensor_content=b"\xff" * 9),
    "a huge string shape with content": proto(S, [BIG], tensor_content=b"\x01a"),
    "a value out of range": proto(U8, [1], int_val=[256]),
    "no type": proto(types_pb2.DT_INVALID, [1], float_val=[1]),
    "a resource": proto(types_pb2.DT_RESOURCE, [1]),
    "an unknown type": proto(97, [1], float_val=[1]),
}


@pytest.mark.parametrize("lie", LIARS)
def test_a_tensor_that_lies_is_refused_before_it_is_allocated(lie: str) -> None:
    with pytest.raises(ServingError) as caught:
        tensors.decode("x", LIARS[lie])
    assert caught.value.code.name == "INVALID_ARGUMENT"
    assert caught.value.message.startswith("tensor parsing error: x: ")


def test_an_unknown_rank_is_refused() -> None:
    made = proto(F, [], float_val=[1])
    made.tensor_shape.unknown_rank = True
    with pytest.raises(ServingError, match="unknown rank"):
        tensors.decode("x", made)


SHORT_FORMS = {
    "the last value repeats": (proto(F, [3], float_val=[1, 2]), [1, 2, 2]),
    "one value is a constant": (proto(F, [2, 2], float_val=[5]), [[5, 5], [5, 5]]),
    "no values are zeros": (proto(F, [2]), [0, 0]),
    "surplus is ignored": (proto(F, [1], float_val=[1, 2]), [1]),
    "an empty tensor ignores values": (proto(F, [0], float_val=[1]), []),
    "an empty tensor ignores content": (proto(F, [0], tensor_content=b"1"), []),
    "surplus of any size is ignored": (proto(U8, [1], int_val=[1, 256]), [1]),
    "a scalar without a value is zero": (proto(F, []), 0),
    "the last string repeats": (proto(S, [3], string_val=[b"a", b"b"]), [b"a", b"b", b"b"]),
    "no strings are empty ones": (proto(S, [2]), [b"", b""]),
    "surplus strings are ignored": (proto(S, [1], string_val=[b"a", b"b"]), [b"a"]),
    "another type's field is not looked at": (proto(F, [1], int_val=[1]), [0]),
    "half a complex number is none": (proto(types_pb2.DT_COMPLEX64, [1], scomplex_val=[1]), [0]),
    "an odd complex value is surplus": (
        proto(types_pb2.DT_COMPLEX64, [2], scomplex_val=[1, 2, 3]),
        [1 + 2j, 1 + 2j],
    ),
}


@pytest.mark.parametrize("form", SHORT_FORMS)
def test_short_forms_of_tensors(form: str) -> None:
    made, expected = SHORT_FORMS[form]
    assert tensors.decode("x", made).tolist() == expected


FIELDS = ("float_val", "double_val", "scomplex_val", "dcomplex_val")


@pytest.mark.parametrize("kind", tensors.BY_NUMBER.values(), ids=lambda kind: kind.name)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_tensors_are_read_as_tensorflow_reads_them(kind: tensors.ElementType, data) -> None:
    import tensorflow as tf

    shape = data.draw(st.lists(st.integers(0, 3), max_size=3))
    values: st.SearchStrategy = st.floats(width=32) if kind.field in FIELDS else st.integers(0, 1)
    if kind.field == "string_val":
        values = st.binary(max_size=3)
    made = proto(kind.number, shape, **{kind.field: data.draw(st.lists(values, max_size=6))})
    if data.draw(st.booleans()):
        # Lengths of strings must be small, and a bool 0 or 1.
        lengths = st.just(b"\0" * 3 + b"\1x")
        bools = st.just(b"\0\1\2")
        made.tensor_content = data.draw(st.binary(max_size=40) | lengths | bools)
    try:
        theirs = tf.io.parse_tensor(made.SerializeToString(), tf.dtypes.as_dtype(kind.number))
    except tf.errors.InvalidArgumentError:
        with pytest.raises(ServingError):
            tensors.decode("x", made)
    else:
        found = tensors.decode("x", made)
        assert found.shape == theirs.shape
        expected = np.empty(theirs.shape, dtype=found.dtype)
        expected[...] = theirs.numpy()
        assert equal(found, expected)


@settings(deadline=None)
@given(
    hnp.arrays(object, hnp.array_shapes(min_dims=1, max_dims=2, min_side=0), elements=st.binary())
)
def test_strings_go_through_tensor_content_as_in_cpp(array: np.ndarray) -> None:
    import tensorflow as tf

    ours = tensors.encode(array, content=True)
    assert not ours.string_val
    assert tf.io.parse_tensor(ours.SerializeToString(), tf.string).numpy().tolist() == (
        array.tolist()
    )
    theirs = tf.io.serialize_tensor(tf.constant(array, tf.string)).numpy()
    assert tensors.decode("x", TensorProto.FromString(theirs)).tolist() == array.tolist()


def test_a_scalar_has_an_empty_shape() -> None:
    for content in (False, True):
        assert tensors.encode(np.array(1.0), content=content).HasField("tensor_shape")


def test_one_value_with_a_shape_is_a_constant_as_in_tensorflow() -> None:
    import tensorflow as tf

    abbreviated = tf.make_tensor_proto(2.5, shape=[2, 3])
    decoded = tensors.decode("x", TensorProto.FromString(abbreviated.SerializeToString()))
    np.testing.assert_array_equal(decoded, np.full((2, 3), 2.5, np.float32))


@settings(deadline=None, max_examples=300)
@given(
    st.builds(
        lambda dtype, shape, floats, ints, strings, content: proto(
            dtype,
            shape,
            float_val=floats,
            int_val=ints,
            half_val=ints,
            string_val=strings,
            tensor_content=content,
        ),
        st.integers(0, 130),
        st.lists(st.integers(-2, 5) | st.integers(-(1 << 63), (1 << 63) - 1), max_size=4),
        st.lists(st.floats(width=32), max_size=5),
        st.lists(st.integers(-(1 << 31), (1 << 31) - 1), max_size=5),
        st.lists(st.binary(max_size=4), max_size=5),
        st.binary(max_size=24),
    )
)
def test_any_tensor_is_an_array_of_its_shape_or_an_invalid_argument(made: TensorProto) -> None:
    array = None
    with contextlib.suppress(ServingError):  # the only allowed error
        array = tensors.decode("x", made)
    if array is not None:
        assert array.shape == tuple(dim.size for dim in made.tensor_shape.dim)
