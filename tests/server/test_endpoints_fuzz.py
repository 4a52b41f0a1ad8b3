"""Random requests get an answer or one clear error from every protocol."""

from __future__ import annotations

import json

import grpc
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurewire_server._tfs import open_inference_pb2 as oip
from featurewire_server.messages.open_inference import parse
from tests.server.endpoints import (
    EMBEDDINGS,
    HEADER,
    INFER,
    data_uri,
    infer_request,
    json_request,
    strings,
)
from tests.server.support import JPEG

Code = grpc.StatusCode


FUZZ = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


CALLERS_FAULT = {
    Code.INVALID_ARGUMENT,
    Code.NOT_FOUND,
    Code.FAILED_PRECONDITION,
    Code.RESOURCE_EXHAUSTED,
    Code.UNIMPLEMENTED,
    Code.DEADLINE_EXCEEDED,
}


_datatypes = st.sampled_from(["BYTES", "FP32", "INT64", "UINT8", "BOOL", "FP16", "BF16", "", "X"])


_sizes = st.one_of(st.integers(-2, 4), st.integers(-(1 << 63), (1 << 63) - 1))


_raw = st.one_of(
    st.binary(max_size=40),
    st.lists(st.binary(max_size=9), max_size=4).map(lambda items: strings(*items)),
)


_items = st.lists(st.just(JPEG) | st.binary(max_size=9), max_size=3)
_names = st.sampled_from(["image_bytes", "image_bytes", "x", ""])


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)


@st.composite
def grpc_requests(draw: st.DrawFn) -> oip.ModelInferRequest:
    """A good request, or one with a few wrong parts."""
    request = infer_request(*draw(_items), typed=draw(st.booleans()))
    for change in draw(st.lists(st.sampled_from(range(6)), max_size=3)):
        tensor = request.inputs[0]
        if change == 0:
            tensor.name = draw(_names)
        elif change == 1:
            tensor.datatype = draw(_datatypes)
        elif change == 2:
            tensor.shape[:] = draw(st.lists(_sizes, max_size=3))
        elif change == 3:
            request.raw_input_contents.append(draw(_raw))
        elif change == 4:
            tensor.contents.int_contents.extend(draw(st.lists(st.integers(-9, 999), max_size=3)))
        else:
            name = draw(st.sampled_from(["timeout", "signature_name", "x"]))
            request.parameters[name].int64_param = draw(st.integers(-(1 << 63), (1 << 63) - 1))
    return request


@given(request=grpc_requests() | st.binary(max_size=60))
@FUZZ
def test_any_message_gets_an_answer_or_one_clear_error(endpoints, request):
    code, text = Code.OK, ""
    try:
        endpoints.call("ModelInfer", request)
    except grpc.RpcError as error:
        code, text = error.code(), error.details()
    assert code is Code.OK or (code in CALLERS_FAULT and text), text


@given(
    request=grpc_requests(),
    head=st.sampled_from([b"", b"\x0a\x01x", b"\x3a\x02ab"]),
    tail=st.binary(max_size=9),
)
@FUZZ
def test_a_request_is_read_as_protobuf_reads_it(request, head, tail):
    data = head + request.SerializeToString() + tail
    try:
        wanted = oip.ModelInferRequest.FromString(data)
    except DecodeError:
        with pytest.raises(DecodeError):
            parse(data)
        return
    found = parse(data)
    message = oip.ModelInferRequest()
    message.CopyFrom(found.message)
    message.raw_input_contents[:] = [bytes(each) for each in found.raw]
    assert message == wanted


_changes = st.fixed_dictionaries(
    {},
    optional={
        "name": _names | _json,
        "datatype": _datatypes | _json,
        "shape": st.lists(_sizes, max_size=3) | _json,
        "data": st.lists(st.floats() | st.text(max_size=9), max_size=4) | _json,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": _sizes | _json}),
    },
)
_inputs = st.builds(
    lambda items, changes: json_request(*items)["inputs"][0] | changes,
    _items,
    st.just({}) | _changes,
)
_tails = st.just(b"") | st.binary(max_size=40)
_documents = _json | st.fixed_dictionaries(
    {"inputs": st.lists(_inputs, min_size=1, max_size=1) | st.lists(_inputs) | _json},
    optional={"outputs": _json, "parameters": _json, "id": _json},
)


@given(document=_documents, tail=_tails, header=st.none() | st.integers(-1, 300))
@FUZZ
def test_any_body_of_infer_gets_an_answer_or_one_error(endpoints, document, tail, header):
    head = json.dumps(document).encode()
    headers = {} if header is None else {HEADER: str(len(head) + header - 10)}
    status, text, answered = endpoints.http("POST", INFER, head + tail, **headers)
    assert status in (200, 400, 404, 429, 501, 504), text
    assert status == 200 or json.loads(text)["error"], answered


_images = (
    st.just(data_uri(JPEG))
    | st.text(max_size=20)
    | st.binary(max_size=20).map(data_uri)
    | st.sampled_from(["data:", "data:,", "data:;base64,", "data:image/gif;base64,R0lGODlh", JPEG])
    | _json
)


_questions = st.fixed_dictionaries(
    {"model": st.sampled_from(["tiny", "tiny:1", "x", ""]) | _json},
    optional={
        "input": _images | st.lists(_images, max_size=4),
        "messages": _json,
        "encoding_format": st.sampled_from(["float", "base64", "x"]),
        "dimensions": _json,
    },
)


@given(document=_questions | _json)
@FUZZ
def test_any_question_gets_vectors_or_one_error(endpoints, document):
    body = json.dumps(document, default=lambda item: data_uri(item)).encode()
    status, text, _ = endpoints.http("POST", EMBEDDINGS, body)
    assert status in (200, 400, 404, 422, 429), text
    assert status == 200 or json.loads(text)["error"]["message"]
