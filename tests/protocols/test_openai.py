"""The openai package, unchanged, synchronous and asyncio."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import numpy as np
import pytest

openai = pytest.importorskip("openai")


def data_uri(image: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(image).decode()


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"http://{server.rest}/v1", api_key="none") as made:
        yield made


def vectors_of(answer: Any) -> bytes:
    return np.array([each.embedding for each in answer.data], np.float32).tobytes()


@pytest.mark.parametrize("form", [{}, {"encoding_format": "float"}], ids=["base64", "float"])
def test_vectors_are_those_of_predict(client, images, wanted, form):
    uris = [data_uri(image) for image in images]
    answer = client.embeddings.create(model="small", input=uris, **form)
    assert vectors_of(answer) == wanted
    assert (answer.model, answer.usage.total_tokens) == ("small:1", 0)


def test_the_asyncio_client_works_too(server, images, wanted):
    async def run() -> None:
        async with openai.AsyncOpenAI(
            base_url=f"http://{server.rest}/v1", api_key="none"
        ) as client:
            uris = [data_uri(image) for image in images]
            assert vectors_of(await client.embeddings.create(model="small", input=uris)) == wanted

    asyncio.run(run())


def test_other_forms_go_in_the_extra_body(client, images, wanted):
    part = {"type": "image_url", "image_url": {"url": data_uri(images[0])}}
    body = {"messages": [{"role": "user", "content": [part]}]}
    answer = client.embeddings.create(model="small", input=openai.omit, extra_body=body)
    assert vectors_of(answer) == wanted[: 192 * 4]


def test_odd_images_are_named_one_by_one(client, odd_images):
    with pytest.raises(openai.UnprocessableEntityError) as bad:
        client.embeddings.create(model="small", input=[data_uri(image) for image in odd_images])
    assert [(each["index"], each["status"]) for each in bad.value.body["images"]] == [
        (1, "too_large"),
        (2, "corrupt"),
        (3, "unsupported"),
        (4, "empty"),
    ]
    answer = client.embeddings.create(model="small", input=data_uri(odd_images[0]))
    assert len(answer.data[0].embedding) == 192


def test_errors_are_the_packages_own(client, images):
    with pytest.raises(openai.NotFoundError) as unknown:
        client.embeddings.create(model="other", input=data_uri(images[0]))
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="never fetched"):
        client.embeddings.create(model="small", input="https://127.0.0.1:1/cat.jpg")
    with pytest.raises(openai.BadRequestError, match="no text is embedded"):
        client.embeddings.create(model="small", input="a cat")
    with pytest.raises(openai.UnprocessableEntityError) as bad:
        client.embeddings.create(model="small", input=[data_uri(images[0]), data_uri(b"text")])
    assert (bad.value.param, bad.value.code) == ("input[1]", "unsupported")
