"""OpenAI's `/v1/embeddings` for images: takes data URIs and returns vectors.

Accepts images in the forms of vLLM, llama.cpp and Jina. It never fetches a URL.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import grpc
import numpy as np
import orjson

from featurewire._tfs import types_pb2
from featurewire._tfs.meta_graph_pb2 import SignatureDef
from featurewire._tfs.model_pb2 import ModelSpec
from featurewire_server.api import Api
from featurewire_server.common.errors import ServingError, failed_precondition, invalid_argument
from featurewire_server.common.loop import JSON, by_size
from featurewire_server.messages import predict
from featurewire_server.messages.predict import Run
from featurewire_server.transport.open_inference import model_spec
from featurewire_server.transport.rest import decode, document
from featurewire_server.transport.rest.exchange import (
    MAX_TEXT,
    Answer,
    Endpoint,
    Request,
    failure,
    unpacked,
)

PATH = "/v1/embeddings"
MAX_IMAGES = 2048
"""Maximum number of images per request, which is OpenAI's limit of inputs."""
MAX_REASONS = 20
"""Maximum number of bad images in an error text; the error's list contains all of them."""
MARKER = "<__media__>"
"""llama.cpp's placeholder for an image in a prompt."""
FEATURES, STATUS = "features", "status"
STATUS_NAMES = {1: "empty", 2: "unsupported", 3: "too_large", 4: "corrupt"}


class BadImages(ServingError):
    """Some images cannot be embedded. `status` maps their indices to the reasons."""

    def __init__(self, status: Mapping[int, str]) -> None:
        self.status = status
        parts = [f"input[{at}] is {name}" for at, name in [*status.items()][:MAX_REASONS]]
        more = len(status) - len(parts)
        text = "; ".join(parts) + (f"; and {more} more" if more else "")
        super().__init__(grpc.StatusCode.INVALID_ARGUMENT, text)


@dataclass(frozen=True, kw_only=True)
class Question:
    """The content of a request."""

    spec: ModelSpec
    images: list[bytes]
    encoding: str
    """`float` or `base64`."""
    dimensions: int | None
    """The required size of the vectors; None: any."""


class EmbeddingsEndpoint(Endpoint):
    """Answers `POST /v1/embeddings`."""

    api = "Embeddings"

    def __init__(self, api: Api, max_body_bytes: int) -> None:
        self._api = api
        self._max_body_bytes = max_body_bytes

    def takes(self, path: str) -> bool:
        return path.partition("?")[0] == PATH

    async def answer(self, request: Request) -> Answer:
        if request.method != "POST":
            return self.refusal(405, f"{PATH} takes POST")
        request.call.api = self.api
        asked = await by_size(JSON * len(request.body), self._question, request)
        request.body = b""
        plan = partial(_plan, images=asked.images)
        return await self._api.run(asked.spec, plan, partial(_encode, asked=asked), request.call)

    def _question(self, request: Request) -> Question:
        with unpacked(request, self._api.admission, self._max_body_bytes) as (body, hold):
            # The strings of the document take as much memory as the body. The decoded images
            # replace the body itself.
            hold.resize(hold.size + len(body) + document.footprint(body))
            return question(document.parse(body))

    def failure(self, error: ServingError) -> Answer:
        answer = failure(error)
        if not isinstance(error, BadImages):
            code = "model_not_found" if error.code is grpc.StatusCode.NOT_FOUND else None
            return replace(answer, body=_error(answer.status, error.message, code=code))
        (first, reason), *_ = error.status.items()
        images = [{"index": at, "status": name} for at, name in error.status.items()]
        body = _error(422, error.message, param=f"input[{first}]", code=reason, images=images)
        return replace(answer, status=422, body=body)

    def refusal(self, status: int, text: str) -> Answer:
        return Answer(status=status, body=_error(status, text))


def _error(status: int, text: str, **more: object) -> bytes:
    """An error in OpenAI's form."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    kind = "rate_limit_error" if status == 429 else kind
    error = {"message": text[:MAX_TEXT], "type": kind, "param": None, "code": None}
    return orjson.dumps({"error": error | more})


def question(found: dict[str, Any]) -> Question:
    """Read the content of a request from its document. Raises INVALID_ARGUMENT."""
    model = found.get("model")
    if not isinstance(model, str) or not model:
        raise invalid_argument("'model' must name a model: NAME, NAME:VERSION or NAME:LABEL")
    name, _, version = model.partition(":")
    encoding, dimensions = found.get("encoding_format"), found.get("dimensions")
    if encoding not in (None, "float", "base64"):
        raise invalid_argument("'encoding_format' must be float or base64")
    if dimensions is not None and type(dimensions) is not int:
        raise invalid_argument("'dimensions' must be a number")
    return Question(
        spec=model_spec(name, version),
        images=_images(found),
        encoding=encoding or "float",
        dimensions=dimensions,
    )


def _images(found: dict[str, Any]) -> list[bytes]:
    if "messages" in found:
        return [_image_of_messages(found["messages"])]
    given = found.get("input")
    items = given if isinstance(given, list) else [given]
    if not 1 <= len(items) <= MAX_IMAGES:
        raise invalid_argument(f"'input' has {len(items)} images; from 1 to {MAX_IMAGES} are taken")
    return [_image(item, f"input[{at}]") for at, item in enumerate(items)]


def _image_of_messages(messages: Any) -> bytes:
    """The image of a conversation, which must be a single one, because it yields one vector."""
    parts: list[Any] = []
    for message in messages if isinstance(messages, list) else [None]:
        content = message.get("content") if isinstance(message, dict) else None
        parts += content if isinstance(content, list) else [content]
    if len(parts) != 1 or not isinstance(parts[0], dict) or "image_url" not in parts[0]:
        raise invalid_argument("'messages' must hold one part, an image_url: no text is embedded")
    url = parts[0]["image_url"]
    return _image(url.get("url") if isinstance(url, dict) else url, "messages")


def _image(item: Any, where: str) -> bytes:
    """The image in a data URI, in Jina's `{"image": …}` or in llama.cpp's `multimodal_data`."""
    bare = False
    if isinstance(item, dict) and "image" in item:
        item, bare = item["image"], True
    elif isinstance(item, dict) and "multimodal_data" in item:
        data, prompt = item["multimodal_data"], item.get("prompt_string", MARKER)
        if not isinstance(data, list) or len(data) != 1 or prompt != MARKER:
            raise invalid_argument(f"{where} must hold one image and no text but {MARKER}")
        item, bare = data[0], True
    if not isinstance(item, str):
        raise invalid_argument(f"{where} is not an image: send a data URI")
    if re.match("[a-z][a-z0-9+.-]*://", item, re.IGNORECASE):
        raise invalid_argument(f"{where} is a URL, which is never fetched: send a data URI")
    head, comma, data = item.partition(",")
    if comma and head.lower().startswith("data:") and head.lower().endswith(";base64"):
        item, bare = data, True
    if not bare:
        raise invalid_argument(
            f"{where} is not an image: send data:image/jpeg;base64,… (no text is embedded)"
        )
    try:
        return decode.bytes_of({"b64": item})
    except ServingError:
        raise invalid_argument(f"{where} is not base64") from None


def _plan(
    signatures: Mapping[str, SignatureDef], *, images: list[bytes], check_method: bool
) -> Run:
    name, signature = predict.signature_of(signatures, "")
    inputs = [*signature.inputs.values()]
    vectors = signature.outputs.get(FEATURES)
    if len(inputs) != 1 or inputs[0].dtype != types_pb2.DT_STRING or vectors is None:
        raise failed_precondition(
            f"The signature {name} does not turn encoded images into {FEATURES}"
        )
    (alias,) = signature.inputs
    outputs = [each for each in (FEATURES, STATUS) if each in signature.outputs]
    return predict.plan_tensors(
        signatures, name, {alias: images}, outputs, _decode, check_method=check_method
    )


def _decode(_: str, images: list[bytes]) -> tuple[np.ndarray, int]:
    array = np.empty(len(images), dtype=object)
    array[:] = images
    return array, types_pb2.DT_STRING


def _encode(spec: ModelSpec, values: Mapping[str, np.ndarray], *, asked: Question) -> Answer:
    """The answer with the vectors. Raises BadImages if an image could not be embedded."""
    vectors = np.asarray(values[FEATURES], np.float32)
    if asked.dimensions not in (None, vectors.shape[-1]):
        raise invalid_argument(f"The vectors of {spec.name} have {vectors.shape[-1]} dimensions")
    status = values.get(STATUS, np.zeros(len(vectors), np.int32)).tolist()
    bad = {at: STATUS_NAMES.get(code, f"status {code}") for at, code in enumerate(status) if code}
    if bad:
        raise BadImages(bad)
    packed = asked.encoding == "base64"
    answer = {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": at,
                "embedding": base64.b64encode(row.tobytes()).decode() if packed else row,
            }
            for at, row in enumerate(vectors)
        ],
        "model": f"{spec.name}:{spec.version.value}",
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }
    return Answer(status=200, body=orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))
