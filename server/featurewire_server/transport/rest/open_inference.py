"""The Open Inference Protocol v2 over REST, including the binary tensor extension."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote

import numpy as np
import orjson

from featurewire._tfs.model_pb2 import ModelSpec
from featurewire_server._tfs.open_inference_pb2 import (
    InferParameter,
    ModelInferRequest,
    ModelMetadataRequest,
    ModelReadyRequest,
    ServerMetadataRequest,
)
from featurewire_server.api import Api
from featurewire_server.common.errors import invalid_argument, not_found
from featurewire_server.common.loop import JSON, by_size
from featurewire_server.messages import open_inference, tensors
from featurewire_server.messages.open_inference import InferRequest, Raw
from featurewire_server.transport.open_inference import OpenInference, model_spec, refused
from featurewire_server.transport.rest import decode, document
from featurewire_server.transport.rest.exchange import MAX_TEXT, Answer, Endpoint, Request, unpacked

_PATH = re.compile(
    r"/v2(?:/health/(?P<health>live|ready)"
    r"|/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/(?P<verb>ready|infer))?)?/?"
)
_EXTENSION = re.compile(
    r"/v2/(?:repository|systemsharedmemory|cudasharedmemory|trace|logging)\b.*"
    r"|/v2/models/.*/(?:stats|config|generate|generate_stream|trace/setting)"
)
HEADER = "Inference-Header-Content-Length"


class OpenInferenceEndpoint(Endpoint):
    """Answers all paths under `/v2`."""

    api = "ModelInfer"

    def __init__(self, api: Api, max_body_bytes: int) -> None:
        self._api = api
        self._oip = OpenInference(api)
        self._max_body_bytes = max_body_bytes

    def takes(self, path: str) -> bool:
        return re.match(r"/v2(?:[/?]|$)", path) is not None

    async def answer(self, request: Request) -> Answer:
        path = request.path.partition("?")[0]
        match = _PATH.fullmatch(path)
        if match is None and _EXTENSION.fullmatch(path):
            raise refused(path)
        method = "POST" if match and match["verb"] == "infer" else "GET"
        if match is None or request.method != method:
            raise not_found(f"Malformed request: {request.method} {path[:MAX_TEXT]}")
        name, version = unquote(match["name"] or ""), unquote(match["version"] or "")
        if match["health"]:
            ready = match["health"] == "live" or self._api.manager.ready
            return _json({"live": True, "ready": ready}, 200 if ready else 503)
        if not name:
            return await self._server_metadata(request)
        if match["verb"] == "infer":
            return await self._infer(request, name, version)
        if match["verb"] == "ready":
            return await self._model_ready(request, name, version)
        return await self._model_metadata(request, name, version)

    async def _server_metadata(self, request: Request) -> Answer:
        found = await self._oip.server_metadata(ServerMetadataRequest(), request.call)
        return _json(
            {"name": found.name, "version": found.version, "extensions": [*found.extensions]}
        )

    async def _model_ready(self, request: Request, name: str, version: str) -> Answer:
        self._api.manager.statuses(ModelSpec(name=name))  # NOT_FOUND for an unknown model
        message = ModelReadyRequest(name=name, version=version)
        ready = (await self._oip.model_ready(message, request.call)).ready
        return _json({"name": name, "ready": ready}, 200 if ready else 503)

    async def _model_metadata(self, request: Request, name: str, version: str) -> Answer:
        message = ModelMetadataRequest(name=name, version=version)
        found = await self._oip.model_metadata(message, request.call)
        return _json(
            {
                "name": found.name,
                "versions": [*found.versions],
                "platform": found.platform,
                "inputs": [_tensor(each) for each in found.inputs],
                "outputs": [_tensor(each) for each in found.outputs],
            }
        )

    async def _infer(self, request: Request, name: str, version: str) -> Answer:
        request.call.api, request.call.model = self.api, name
        head = _json_bytes(request)
        if not request.packed and b'"signature_name"' not in request.body[:head]:
            self._api.require_time(model_spec(name, version), request.call)
        size = JSON * (len(request.body) if request.packed else head)
        message = await by_size(size + len(request.body), self._message, request, name, version)
        request.body = b""
        encode = partial(_encode, request=message.message)
        return await self._oip.infer(message, encode, request.call)

    def _message(self, request: Request, name: str, version: str) -> InferRequest:
        with unpacked(request, self._api.admission, self._max_body_bytes) as (body, hold):
            head = _json_bytes(request, body)
            hold.resize(hold.size + document.footprint(body[:head]))
            message = ModelInferRequest(model_name=name, model_version=version)
            raw = _fill(message, document.parse(body[:head]), memoryview(body)[head:])
            return InferRequest(message, raw)


def _json_bytes(request: Request, body: bytes | None = None) -> int:
    """The number of JSON bytes in the body. Raises INVALID_ARGUMENT for a wrong header."""
    if not request.json_bytes:
        return len(request.body if body is None else body)
    size = int(request.json_bytes) if re.fullmatch("[0-9]{1,12}", request.json_bytes) else -1
    if size < 0 or (body is not None and size > len(body)):
        raise invalid_argument(f"{HEADER} is not a number of bytes of the body")
    return size


def _fill(message: ModelInferRequest, found: dict[str, Any], binary: memoryview) -> list[Raw]:
    """Fill `message` from the document `found`, and return the tensors in raw form.

    `binary`: the bytes of the body after the JSON. Raises INVALID_ARGUMENT.
    """
    raw: list[Raw] = []
    message.id = _member(found, "id", str, "")
    _set_parameters(message.parameters, found)
    for given in _objects(found, "inputs"):
        tensor = message.inputs.add(
            name=_member(given, "name", str), datatype=_member(given, "datatype", str)
        )
        for size in _member(given, "shape", list):
            if type(size) is not int or not 0 <= size < 1 << 63:
                raise invalid_argument(f"input {tensor.name}: the shape has {document.shown(size)}")
            tensor.shape.append(size)
        _set_parameters(tensor.parameters, given)
        if "binary_data_size" not in tensor.parameters:
            data = _member(given, "data", list)
            raw.append(_raw(data, open_inference.datatype(tensor.datatype)))
        else:
            size = tensor.parameters["binary_data_size"].int64_param
            if "data" in given or not 0 <= size <= len(binary):
                raise invalid_argument(
                    f"input {tensor.name}: binary_data_size is {size}, and {len(binary)} bytes "
                    "are left after the JSON" + (", next to data" if "data" in given else "")
                )
            raw.append(binary[:size])
            binary = binary[size:]
    if binary:
        raise invalid_argument(f"{len(binary)} bytes after the JSON belong to no input")
    for given in _objects(found, "outputs", []):
        output = message.outputs.add(name=_member(given, "name", str))
        _set_parameters(output.parameters, given)
    return raw


_MISSING: Any = object()


def _member(of: dict[str, Any], name: str, kind: type, default: Any = _MISSING) -> Any:
    value = of.get(name, default)
    if not isinstance(value, kind):
        kinds: dict[Any, str] = {str: "a string", list: "a list", dict: "an object"}
        raise invalid_argument(f"{name!r} must be {kinds[kind]}")
    return value


def _objects(of: dict[str, Any], name: str, default: Any = _MISSING) -> list[dict[str, Any]]:
    found = _member(of, name, list, default)
    if not all(isinstance(each, dict) for each in found):
        raise invalid_argument(f"{name!r} must be a list of objects")
    return found  # type: ignore[no-any-return]


_FIELDS: dict[Any, str] = {
    bool: "bool_param",
    int: "int64_param",
    str: "string_param",
    float: "double_param",
}


def _set_parameters(parameters: Any, of: dict[str, Any]) -> None:
    for name, value in _member(of, "parameters", dict, {}).items():
        if type(value) not in _FIELDS or (type(value) is int and not -1 << 63 <= value < 1 << 63):
            raise invalid_argument(f"the parameter {name!r} is {document.shown(value)}")
        parameters[name].CopyFrom(InferParameter(**{_FIELDS[type(value)]: value}))


_TYPES: dict[str, set[type]] = {
    "b": {bool},
    "i": {int},
    "u": {int},
    "f": {int, float},
    "V": {int, float},
}
"""Kind of numpy dtype to the allowed types of JSON values; `V` is bfloat16."""


def _raw(data: list[Any], found: open_inference.Datatype) -> bytes:
    """The raw form of the JSON list `data`, flat or nested. Raises INVALID_ARGUMENT."""
    flat, kind = _flat(data), found.kind.dtype.kind
    if found.kind.dtype == object:
        values = np.empty(len(flat), dtype=object)
        values[:] = [_bytes(item) for item in flat]
        return open_inference.raw_of(values)
    if not set(map(type, flat)) <= _TYPES[kind] or (kind == "u" and flat and min(flat) < 0):
        raise invalid_argument(f"'data' contains a value that is not a {found.name}")
    wide = {"i": np.int64, "u": np.uint64, "b": np.bool_}.get(kind, np.float64)
    try:
        return open_inference.narrowed(np.array(flat, dtype=wide), found).tobytes()
    except OverflowError:
        raise invalid_argument(f"a number is beyond the range of {found.name}") from None


def _flat(data: list[Any]) -> list[Any]:
    """Flatten nested lists. If they are nested unevenly, some items are still lists."""
    while data and all(type(item) is list for item in data):
        data = [item for inner in data for item in inner]
    return data


def _bytes(item: Any) -> bytes:
    """The bytes of a string in UTF-8, or of a `{"b64": …}` object. Raises INVALID_ARGUMENT."""
    if decode.is_base64(item):
        return decode.bytes_of(item)
    if not isinstance(item, str):
        raise invalid_argument('\'data\' of BYTES must be strings or objects like {"b64": "…"}')
    return item.encode(errors="surrogatepass")


def _encode(
    spec: ModelSpec, values: Mapping[str, np.ndarray], *, request: ModelInferRequest
) -> Answer:
    """The answer: JSON, followed by the outputs that the request wants in binary form."""
    all_binary = request.parameters["binary_data_output"].bool_param
    wanted = {
        output.name: output.parameters["binary_data"].bool_param
        for output in request.outputs
        if "binary_data" in output.parameters
    }
    outputs: list[dict[str, Any]] = []
    chunks: list[bytes] = []
    for name in open_inference.output_names(request, values):
        kind, array = tensors.typed(values[name])
        datatype = open_inference.datatype_of(kind.number)
        output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": [*array.shape]}
        if wanted.get(name, all_binary):
            chunks.append(open_inference.raw_of(array))
            output["parameters"] = {"binary_data_size": len(chunks[-1])}
        elif kind.dtype == object:
            output["data"] = [_text(item) for item in tensors.texts(array)]
        else:
            half = kind.dtype.itemsize == 2 and kind.dtype.kind in "fV"
            output["data"] = array.ravel().astype(np.float32) if half else array.ravel()
        outputs.append(output)
    answer = {"model_name": spec.name, "model_version": str(spec.version.value)}
    if request.id:
        answer["id"] = request.id
    head = orjson.dumps(answer | {"outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
    if not chunks:
        return Answer(status=200, body=head)
    return Answer(
        status=200,
        body=b"".join([head, *chunks]),
        content_type="application/octet-stream",
        headers=((HEADER, str(len(head))),),
    )


def _text(item: bytes) -> str | dict[str, str]:
    try:
        return item.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(item).decode()}


def _tensor(found: Any) -> dict[str, Any]:
    return {"name": found.name, "datatype": found.datatype, "shape": [*found.shape]}


def _json(value: dict[str, Any], status: int = 200) -> Answer:
    return Answer(status=status, body=orjson.dumps(value))
