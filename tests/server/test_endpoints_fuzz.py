"""Random requests get an answer or one clear error from every protocol."""

from __future__ import annotations

import json

import grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurewire_server._tfs import open_inference_pb2 as oip
from tests.server.endpoints import (
    EMBEDDINGS,
    HEADER,
    INFER,
    data_uri,
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


_names = st.sampled_from(["image_bytes", "image_bytes", "x", ""])


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)


@st.composite
def grpc_requests(draw: st.DrawFn) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name="tiny", model_version=draw(st.text(max_size=3)))
    for _ in range(draw(st.integers(0, 3))):
        tensor = request.inputs.add(
            name=draw(_names), datatype=draw(_datatypes), shape=draw(st.lists(_sizes, max_size=3))
        )
        if draw(st.booleans()):
            request.raw_input_contents.append(draw(_raw))
        else:
            tensor.contents.bytes_contents.extend(draw(st.lists(st.binary(max_size=9), max_size=3)))
            tensor.contents.int_contents.extend(draw(st.lists(st.integers(-9, 999), max_size=3)))
    for name in draw(st.lists(st.sampled_from(["timeout", "signature_name", "x"]), max_size=2)):
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


_inputs = st.fixed_dictionaries(
    {},
    optional={
        "name": _names | _json,
        "datatype": _datatypes | _json,
        "shape": st.lists(_sizes, max_size=3) | _json,
        "data": st.lists(st.floats() | st.text(max_size=9), max_size=4) | _json,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": _sizes | _json}),
    },
)


_documents = _json | st.fixed_dictionaries(
    {"inputs": st.lists(_inputs, max_size=3) | _json},
    optional={"outputs": _json, "parameters": _json, "id": _json},
)


@given(document=_documents, tail=st.binary(max_size=40), header=st.none() | st.integers(-1, 300))
@FUZZ
def test_any_body_of_infer_gets_an_answer_or_one_error(endpoints, document, tail, header):
    head = json.dumps(document).encode()
    headers = {} if header is None else {HEADER: str(len(head) + header - 10)}
    status, text, answered = endpoints.http("POST", INFER, head + tail, **headers)
    assert status in (200, 400, 404, 429, 501, 504), text
    assert status == 200 or json.loads(text)["error"], answered


_images = (
    st.text(max_size=20)
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
