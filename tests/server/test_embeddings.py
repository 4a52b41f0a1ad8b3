"""/v1/embeddings on a real server: the forms that it accepts and refuses."""

from __future__ import annotations

import base64
from typing import Any

import grpc
import pytest

from tests.server.endpoints import (
    data_uri,
)
from tests.server.support import JPEG
from tests.support.models import expected_vector

Code = grpc.StatusCode


def test_embeddings_names_every_bad_image_by_its_index(endpoints):
    uris = [data_uri(image) for image in (JPEG, b"", JPEG, b"text")]
    status, answer = endpoints.embed(input=uris)
    assert status == 422
    assert answer["error"] == {
        "message": "input[1] is empty; input[3] is unsupported",
        "type": "invalid_request_error",
        "param": "input[1]",
        "code": "empty",
        "images": [{"index": 1, "status": "empty"}, {"index": 3, "status": "unsupported"}],
    }


@pytest.mark.parametrize(
    "members",
    [
        {"input": data_uri(JPEG)},
        {"input": [data_uri(JPEG)]},
        {"input": [{"image": data_uri(JPEG)}]},
        {"input": [{"image": base64.b64encode(JPEG).decode()}]},
        {
            "input": {
                "prompt_string": "<__media__>",
                "multimodal_data": [base64.b64encode(JPEG).decode()],
            }
        },
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": data_uri(JPEG)}}],
                }
            ]
        },
    ],
    ids=["uri", "uris", "jina", "jina-base64", "llama.cpp", "vllm"],
)
def test_embeddings_takes_images_in_the_forms_of_others(endpoints, members):
    status, answer = endpoints.embed(**members)
    assert status == 200
    assert answer["data"] == [
        {"object": "embedding", "index": 0, "embedding": expected_vector(JPEG).tolist()}
    ]
    assert answer["usage"] == {"prompt_tokens": 0, "total_tokens": 0}


QUESTIONS: dict[str, Any] = {
    "no model": {"model": None, "input": data_uri(JPEG)},
    "no input": {},
    "an empty list": {"input": []},
    "text": {"input": "a cat"},
    "a list of texts": {"input": [data_uri(JPEG), "a cat"]},
    "tokens": {"input": [1, 2, 3]},
    "a URL": {"input": "https://127.0.0.1:1/cat.jpg"},
    "a URL of Jina": {"input": [{"image": "http://127.0.0.1:1/cat.jpg"}]},
    "a file": {"input": "file:///etc/passwd"},
    "a text of Jina": {"input": [{"text": "a cat"}]},
    "no base64": {"input": "data:image/png;base64,%%%"},
    "a URI without base64": {"input": "data:image/svg+xml,<svg/>"},
    "a wrong encoding": {"input": data_uri(JPEG), "encoding_format": "int8"},
    "dimensions of another model": {"input": data_uri(JPEG), "dimensions": 7},
    "dimensions in words": {"input": data_uri(JPEG), "dimensions": "8"},
    "no messages": {"messages": []},
    "messages of text": {"messages": [{"role": "user", "content": "a cat"}]},
    "messages of an image and text": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": data_uri(JPEG)}},
                    {"type": "text", "text": "a cat"},
                ],
            }
        ]
    },
    "a prompt with text": {
        "input": {"prompt_string": "a cat <__media__>", "multimodal_data": ["AAAA"]}
    },
    "two images in a prompt": {
        "input": {"prompt_string": "<__media__>", "multimodal_data": ["AAAA", "AAAA"]}
    },
}


@pytest.mark.parametrize("members", QUESTIONS.values(), ids=[*QUESTIONS])
def test_embeddings_refuses_what_is_not_an_image(endpoints, members):
    status, answer = endpoints.embed(**members)
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["message"]


def test_a_url_is_named_as_never_fetched(endpoints):
    _, answer = endpoints.embed(input=["https://127.0.0.1:1/cat.jpg"])
    assert "never fetched" in answer["error"]["message"]
