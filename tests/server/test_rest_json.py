"""Conversion between JSON and tensors, as TensorFlow Serving documents it."""

from __future__ import annotations

import base64
import gzip
import json
import math
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from featurewire._tfs import types_pb2
from featurewire._tfs.get_model_metadata_pb2 import (
    GetModelMetadataResponse,
    SignatureDefMap,
)
from featurewire._tfs.meta_graph_pb2 import TensorInfo
from featurewire_server._tfs.classification_pb2 import ClassificationResult
from featurewire_server.common.errors import ServingError
from featurewire_server.messages import tensors
from featurewire_server.transport.rest import decode, document, encode, examples, routes
from featurewire_server.transport.rest.exchange import gunzip

FLOAT = {"x": TensorInfo(dtype=types_pb2.DT_FLOAT)}
STRING = {"image_bytes": TensorInfo(dtype=types_pb2.DT_STRING)}
TWO = {**FLOAT, "n": TensorInfo(dtype=types_pb2.DT_INT32)}


def message_of(call, *args) -> str:
    with pytest.raises(ServingError) as caught:
        call(*args)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    return caught.value.message


def test_rows_are_stacked_and_a_lone_input_needs_no_name():
    plain = decode.inputs({"instances": [[1, 2], [3, 4.5]]}, FLOAT)
    named = decode.inputs({"instances": [{"x": [1, 2]}, {"x": [3, 4.5]}]}, FLOAT)
    for arrays in (plain, named):
        assert arrays["x"].dtype == np.float32
        assert arrays["x"].tolist() == [[1, 2], [3, 4.5]]


def test_columns_are_taken_whole_and_a_lone_input_needs_no_name():
    assert decode.inputs({"inputs": [[1, 2]]}, FLOAT)["x"].shape == (1, 2)
    assert decode.inputs({"inputs": 7}, FLOAT)["x"].shape == ()
    arrays = decode.inputs({"inputs": {"x": [0.5], "n": [[1], [2]]}}, TWO)
    assert (arrays["x"].shape, arrays["n"].shape) == ((1,), (2, 1))


@pytest.mark.parametrize("padding", ["==", ""])
def test_base64_objects_become_bytes_with_or_without_padding(padding):
    text = base64.b64encode(b"\xff\xd8\x00\x01").decode().rstrip("=") + padding
    for value in ({"instances": [{"b64": text}]}, {"instances": [{"image_bytes": {"b64": text}}]}):
        assert decode.inputs(value, STRING)["image_bytes"].tolist() == [b"\xff\xd8\x00\x01"]
    assert decode.inputs({"inputs": {"b64": text}}, STRING)["image_bytes"].shape == ()


def test_strings_are_utf8():
    assert decode.inputs({"instances": ["ä"]}, STRING)["image_bytes"].tolist() == ["ä".encode()]


@pytest.mark.parametrize(
    ("value", "infos", "text"),
    [
        ({}, FLOAT, "Missing 'inputs' or 'instances' key"),
        ({"inputs": [1], "instances": [1]}, FLOAT, "expecting only one of"),
        ({"instances": []}, FLOAT, "No values in 'instances' array"),
        ({"instances": 3}, FLOAT, "Expecting 'instances' to be an list/array"),
        ({"instances": [1, {"x": 1}]}, FLOAT, "Expecting value/list but got object at item 1"),
        ({"instances": [{"x": 1}, 1]}, FLOAT, "Expecting object but got list at item 1"),
        ({"instances": [[1], [1, 2]]}, FLOAT, "Expecting tensor size: 1 but got: 2"),
        ({"instances": [[[1, 2]], [[1], [2]]]}, FLOAT, "Expecting shape [1,2] but got: [2,1]"),
        ({"instances": [[[1, 2], [3]]]}, FLOAT, "Encountered list at unexpected size: 1"),
        ({"instances": [[1, [2]]]}, FLOAT, "Encountered list at unexpected level: 1 expected < 1"),
        ({"instances": [[[1], 2]]}, FLOAT, "found at incorrect level: 2"),
        ({"instances": [{"x": 1, "y": 1}]}, FLOAT, "does not have named input: y"),
        ({"instances": [{"x": 1}]}, TWO, "keys must be equal to: n,x"),
        ({"instances": [1]}, TWO, "instances is a plain list"),
        ({"inputs": [1]}, TWO, "inputs is a plain value/list"),
        ({"inputs": {"x": 1}}, TWO, "Missing named input: n in 'inputs' object."),
        (
            {"instances": ["a"]},
            FLOAT,
            'JSON Value: "a" Type: String is not of expected type: float',
        ),
        ({"instances": [True]}, FLOAT, "Type: True is not of expected type: float"),
        ({"instances": [None]}, FLOAT, "Type: Null is not of expected type: float"),
        ({"instances": [{"b64": "AA=="}]}, FLOAT, "Type: Object is not of expected type: float"),
        ({"inputs": {"x": 1, "n": 1.5}}, TWO, "is not of expected type: int32"),
        ({"inputs": {"x": 1, "n": 2**31}}, TWO, "is not of expected type: int32"),
        ({"instances": [1]}, STRING, "Type: Number is not of expected type: string"),
        ({"instances": [{"b64": "@@"}]}, STRING, "Unable to base64 decode"),
        ({"instances": ["\ud800"]}, STRING, "surrogate"),
    ],
)
def test_a_mismatch_with_the_signature_has_tensorflow_servings_text(value, infos, text):
    assert text in message_of(decode.inputs, value, infos)


@pytest.mark.parametrize("dtype", [types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE])
@pytest.mark.parametrize(
    "value", [20000000, 16777217, 2**53 + 1, -(2**64), 10**308, 1e39, -1e39, 0.1, math.inf]
)
def test_every_number_that_a_double_holds_is_the_nearest_float(dtype, value):
    found = decode.tensor([value], dtype)
    with np.errstate(over="ignore"):
        assert found.tolist() == [np.float64(value).astype(found.dtype)]


@pytest.mark.parametrize("dtype", ["DT_FLOAT", "DT_DOUBLE"])
@pytest.mark.parametrize("text", ["1e400", "-1e400", "1" + "0" * 400, "-1" + "0" * 400])
def test_a_number_beyond_a_doubles_range_has_rapidjsons_text(dtype, text):
    value = document.parse(b'{"instances": [Infinity, %s]}' % text.encode())
    infos = {"x": TensorInfo(dtype=dtype)}
    assert "Number too big to be stored in double." in message_of(decode.inputs, value, infos)


def test_a_feature_beyond_a_doubles_range_is_refused():
    value = document.parse(b'{"examples": [{"f": [1e400]}]}')
    assert "Number too big to be stored in double." in message_of(examples.read, value)


def test_a_feature_beyond_floats_range_is_infinite():
    value = {"examples": [{"f": [1e39, -1e39, math.nan]}]}
    found = examples.read(value).example_list.examples[0].features.feature["f"].float_list.value
    assert str(list(found)) == "[inf, -inf, nan]"


@pytest.mark.parametrize("pad", [0, document.LARGE_BYTES], ids=["small", "large"])
def test_of_equal_keys_the_first_counts(pad):
    body = b'{"a": [{"x": 1, "y": 0, "x": 2}], "b": 3, "a": 4}' + b" " * pad
    assert document.parse(body) == {"a": [{"x": 1, "y": 0}], "b": 3}


def test_types_without_a_json_form_are_unimplemented():
    infos = {"c": TensorInfo(dtype=types_pb2.DT_COMPLEX64)}
    with pytest.raises(ServingError) as caught:
        decode.inputs({"inputs": [1]}, infos)
    assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED


LARGE = b" " * document.LARGE_BYTES
"""Padding that makes a document large enough to be parsed in steps, so other threads can run."""

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(st.text(), VALUES), st.sampled_from([None, 1]))
def test_a_large_document_is_read_as_the_standard_parser_reads_it(value, indent):
    assert document.parse(json.dumps(value, indent=indent).encode() + LARGE) == value


@settings(deadline=None)
@given(
    st.sampled_from([("", ""), ('{"a": ', "}")]),
    st.text(alphabet='{}[]:,"0-1.eE tfnula\\N', max_size=20),
)
def test_a_large_document_is_refused_if_a_small_one_would_be(around, text):
    def outcome(body: bytes) -> object:
        try:
            return repr(document.parse(body))
        except ServingError as error:
            return error.code

    body = text.join(around).encode()
    assert outcome(body + LARGE) == outcome(body or b" ")


@st.composite
def objects(draw, inner):
    """JSON objects with duplicate keys, and with strings that contain separators."""
    pairs = draw(st.lists(st.tuples(st.sampled_from(["a", "b:c", ":", '"', "\\"]), inner)))
    return "{" + ",".join(f"{json.dumps(key)}:{value}" for key, value in pairs) + "}"


NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.recursive(
    (NUMBERS | st.text(max_size=5) | st.none() | st.booleans()).map(json.dumps),
    lambda inner: st.lists(inner).map(lambda items: f"[{','.join(items)}]") | objects(inner),
    max_leaves=10,
)


@settings(deadline=None, max_examples=50)
@given(objects(TEXTS))
def test_a_small_document_is_read_as_a_large_one(text):
    assert repr(document.parse(text.encode())) == repr(document.parse(text.encode() + LARGE))


@pytest.mark.parametrize("pad", [0, document.LARGE_BYTES], ids=["small", "large"])
@pytest.mark.parametrize(
    ("before", "after"),
    [(b"\xef\xbb\xbf", b""), (b"\r\n ", b"\r\n"), (b"", b" and more"), (b"", b"\0"), (b"", b"}")],
)
def test_what_stands_around_the_document_is_ignored(before, after, pad):
    assert document.parse(before + b'{"a": [1]}' + b" " * pad + after) == {"a": [1]}


@pytest.mark.parametrize("pad", [0, document.LARGE_BYTES], ids=["small", "large"])
def test_words_for_infinity_and_not_a_number(pad):
    body = b'{"i": [Inf, -Inf, Infinity, -Infinity, NaN, -NaN], "s": "-Inf \\" Inf"}'
    value = document.parse(body[:-1] + b" " * pad + b"}")
    assert str(value["i"]) == "[inf, -inf, inf, -inf, nan, nan]"
    assert value["s"] == '-Inf " Inf'


@pytest.mark.parametrize("text", ["Infi", "-Infin", "Nan", "inf", "+Inf", "--Inf"])
def test_other_words_are_no_numbers(text):
    assert "JSON Parse error: " in message_of(document.parse, f'{{"a": {text}}}'.encode())


@pytest.mark.parametrize("pad", [0, document.LARGE_BYTES], ids=["small", "large"])
def test_of_equal_features_the_last_counts(pad):
    body = (
        b'{"examples": [{"x": 1, "y": 0, "x": [2.5]}], "context": {"x": "a", "x": "b"}' + b" " * pad
    )
    read = examples.read(document.parse(body + b"}")).example_list_with_context
    assert list(read.examples[0].features.feature["x"].float_list.value) == [2.5]
    assert list(read.examples[0].features.feature["y"].int64_list.value) == [0]
    assert list(read.context.features.feature["x"].bytes_list.value) == [b"b"]


@pytest.mark.parametrize("pad", [0, document.LARGE_BYTES], ids=["small", "large"])
@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "The document is empty"),
        (b"[1]", "Is not object"),
        (b'{"a": }', "JSON Parse error: "),
        (b'x {"a": 1}', "JSON Parse error: "),
        (b'{"a": 1', "JSON Parse error: "),
        (b'{"a": "\xff"}', "JSON Parse error: "),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "JSON Parse error: "),
    ],
)
def test_bodies_that_are_no_json_object_are_refused(body, text, pad):
    assert text in message_of(document.parse, body + b" " * pad if body else body)


def test_not_a_number_and_infinities_are_numbers():
    value = document.parse(b'{"instances": [NaN, Infinity, -Infinity]}')
    assert str(decode.inputs(value, FLOAT)["x"].tolist()) == "[nan, inf, -inf]"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.2, "0.2"),
        (3.0, "3.0"),
        (9000000.0, "9e+06"),
        (-0.0, "-0.0"),
        (1 / 3, "0.333333343"),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
    ],
)
def test_floats_are_written_as_tensorflow_serving_writes_them(value, text):
    outputs = {"y": tensors.encode(np.array([value], np.float32))}
    assert encode.predict(outputs, rows=True) == f'{{"predictions": [{text}]}}'


@settings(deadline=None)
@given(hnp.arrays(np.uint32, 200))
def test_a_float_has_six_digits_if_they_are_enough_else_nine(bits):
    decimals = bits.astype(np.float32) / np.float32(1000)  # many with few digits
    for array in (bits.view(np.float32), decimals):
        (answer,) = json.loads(
            encode.predict({"y": tensors.encode(array)}, rows=False), parse_float=str
        ).values()
        with np.errstate(over="ignore"):
            for text, value in zip(answer, array, strict=True):
                six = f"{value:g}"
                if np.isfinite(value):
                    expected = six if np.float32(six) == value else f"{value:.9g}"
                    assert text.removesuffix(".0") == expected.removesuffix(".0")


@settings(deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.uint8, np.bool_]),
        hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4),
    )
)
def test_every_array_survives_the_way_through_json(array):
    outputs = {"y": tensors.encode(array)}
    columns = json.loads(encode.predict(outputs, rows=False))["outputs"]
    rows = json.loads(encode.predict(outputs, rows=True))["predictions"]
    for value in (columns, rows):
        back = np.array(value, dtype=array.dtype).reshape(array.shape)
        np.testing.assert_array_equal(back, array)


def test_several_outputs_are_named_in_rows_and_in_columns():
    outputs = {
        "a": tensors.encode(np.array([1, 2], np.int32)),
        "b": tensors.encode(np.array([[0.5], [1.5]], np.float32)),
    }
    assert json.loads(encode.predict(outputs, rows=True)) == {
        "predictions": [{"a": 1, "b": [0.5]}, {"a": 2, "b": [1.5]}]
    }
    assert json.loads(encode.predict(outputs, rows=False)) == {
        "outputs": {"a": [1, 2], "b": [[0.5], [1.5]]}
    }


def test_outputs_named_bytes_and_strings_that_are_no_text_are_base64():
    data = np.array([b"\xff\x00"], dtype=object)
    text = np.array([b"text"], dtype=object)
    packed = {"b64": base64.b64encode(b"\xff\x00").decode()}
    cases = [("y_bytes", data, packed), ("y", data, packed), ("y", text, "text")]
    for name, array, expected in cases:
        answer = json.loads(encode.predict({name: tensors.encode(array)}, rows=True))
        assert answer == {"predictions": [expected]}


def test_metadata_names_the_types_of_references():
    response = GetModelMetadataResponse()
    signatures = SignatureDefMap()
    infos = signatures.signature_def["s"].inputs
    dtypes: dict[str, Any] = {"float": 101, "string": 107, "plain": 1, "unknown": 99}
    for alias, dtype in dtypes.items():
        infos[alias].dtype = dtype
    response.metadata["signature_def"].Pack(signatures)
    found = json.loads(encode.metadata(response))["metadata"]["signature_def"]["signature_def"]
    names = {alias: info["dtype"] for alias, info in found["s"]["inputs"].items()}
    assert names == {
        "float": "DT_FLOAT_REF",
        "string": "DT_STRING_REF",
        "plain": "DT_FLOAT",
        "unknown": 99,
    }


def test_rows_need_one_batch_size():
    outputs = {
        "a": tensors.encode(np.zeros(2, np.float32)),
        "b": tensors.encode(np.zeros(3, np.float32)),
    }
    assert "inconsistent batch size" in message_of(lambda: encode.predict(outputs, rows=True))
    scalar = {"a": tensors.encode(np.array(1, np.float32))}
    assert "no shape information" in message_of(lambda: encode.predict(scalar, rows=True))


def test_classifications_are_pairs_of_label_and_score():
    result = ClassificationResult()
    classes = result.classifications.add().classes
    classes.add(label="cat", score=0.9)
    classes.add(label="dog", score=0.1)
    assert json.loads(encode.classify(result)) == {"results": [[["cat", 0.9], ["dog", 0.1]]]}


def test_examples_hold_each_json_type_in_its_feature():
    value = {
        "context": {"shared": 1.5},
        "examples": [{"i": [1, True], "f": [0.5], "s": "text", "b": {"b64": "AAE="}}],
    }
    read = examples.read(value).example_list_with_context
    features = read.examples[0].features.feature
    assert list(features["i"].int64_list.value) == [1, 1]
    assert list(features["f"].float_list.value) == [0.5]
    assert list(features["s"].bytes_list.value) == [b"text"]
    assert list(features["b"].bytes_list.value) == [b"\x00\x01"]
    assert list(read.context.features.feature["shared"].float_list.value) == [1.5]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, "key 'examples' is expected and was not found"),
        ({"examples": {}}, "to be an list/array"),
        ({"examples": []}, "is an empty array"),
        ({"examples": [1]}, "Example must be JSON object but got JSON Number"),
        ({"examples": [{"a": [1, 0.5]}]}, "Unexpected element type in feature: a"),
        ({"examples": [{"a": None}]}, "unexpected JSON type: Null"),
        ({"examples": [{"a": [[1]]}]}, "unexpected JSON type: Array"),
        ({"examples": [{"a": 2**63}]}, "uint64_t element. Only int64_t is supported"),
        ({"context": 1, "examples": 1}, "Example must be JSON object but got JSON Number"),
        ({"context": {"a": None}}, "unexpected JSON type: Null"),
    ],
)
def test_examples_that_do_not_fit_are_refused(value, text):
    assert text in message_of(examples.read, value)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v1/models/m", {"verb": "status"}),
        ("GET", "/v1/models/m/versions/3", {"verb": "status", "version": 3}),
        ("GET", "/v1/models/m/labels/a%20b", {"verb": "status", "label": "a b"}),
        ("GET", "/v1/models/m/metadata", {"verb": "metadata"}),
        ("GET", "/V1/Models/m/labels/x/metadata", {"verb": "metadata", "label": "x"}),
        ("GET", "/v1/models/m/Metadata", {"verb": "status"}),
        ("POST", "/v1/models/m:predict", {"verb": "predict"}),
        ("POST", "/v1/MODELS/m/versions/3:classify", {"verb": "classify", "version": 3}),
        ("POST", "/v1/models/m/labels/x:regress", {"verb": "regress", "label": "x"}),
    ],
)
def test_paths_name_a_model_a_version_or_label_and_a_verb(method, path, expected):
    assert routes.find(method, path) == routes.Route(name="m", **expected)


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("POST", "/v1/models/m", grpc.StatusCode.INVALID_ARGUMENT),
        ("GET", "/v1/models/m:predict", grpc.StatusCode.INVALID_ARGUMENT),
        ("DELETE", "/v1/models/m", grpc.StatusCode.INVALID_ARGUMENT),
        ("POST", "/v1/models/m:PREDICT", grpc.StatusCode.INVALID_ARGUMENT),
        ("POST", "/v1/models/m:Classify", grpc.StatusCode.INVALID_ARGUMENT),
        ("POST", "/v1/models/m:predict?x=1", grpc.StatusCode.INVALID_ARGUMENT),
        ("POST", "/v1/models/m/versions/1/labels/x:predict", grpc.StatusCode.INVALID_ARGUMENT),
        ("POST", "/v1/models/m/versions/x:predict", grpc.StatusCode.INVALID_ARGUMENT),
        ("GET", "/", grpc.StatusCode.NOT_FOUND),
    ],
)
def test_other_paths_are_malformed_requests(method, path, code):
    with pytest.raises(ServingError) as caught:
        routes.find(method, path)
    assert caught.value.code is code
    assert caught.value.message == f"Malformed request: {method} {path}"


def test_versions_beyond_64_bits_are_refused():
    assert "to numeric" in message_of(routes.find, "GET", f"/v1/models/m/versions/{2**63}")
    assert "to numeric" in message_of(routes.find, "GET", f"/v1/models/m/versions/{'1' * 9000}")


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (3 << 20) + 1])
def test_gzip_unpacks_to_what_was_packed(size):
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert b"".join(gunzip(gzip.compress(data), 4 << 20)) == data


def test_gzip_that_is_cut_garbled_or_too_large_is_refused():
    packed = gzip.compress(bytes(2 << 20))
    for body, limit in ((packed[:-9], 4 << 20), (b"garbage", 4 << 20), (packed, 1 << 20)):
        assert "gzip" in message_of(lambda body, limit: list(gunzip(body, limit)), body, limit)


def test_metadata_names_types_of_references_too():
    signatures = SignatureDefMap()
    info = signatures.signature_def["serving_default"].inputs["x"]
    info.ParseFromString(TensorInfo(name="x:0").SerializeToString() + b"\x10\x65")  # dtype: 101
    response = GetModelMetadataResponse()
    response.metadata["signature_def"].Pack(signatures)
    found = json.loads(encode.metadata(response))["metadata"]["signature_def"]["signature_def"]
    assert found["serving_default"]["inputs"]["x"]["dtype"] == "DT_FLOAT_REF"
