"""Runs the client's main paths, in an environment with only the client's requirements.

Run it as a script; it prints `ok` and the versions of the requirements.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from importlib.metadata import version
from pathlib import Path

import grpc
import numpy as np

from featurewire._tfs import predict_pb2

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import featurewire
from tests.client.misbehaving import Misbehaving, image, reply_to, vector_of


def check(results: list[featurewire.Result], count: int) -> None:
    assert [result.key for result in results] == list(range(count))
    for result in results:
        assert np.array_equal(np.asarray(result.unwrap()), vector_of(image(result.key)))


async def asynchronous(target: str) -> None:
    async with featurewire.AsyncClient(target, model="tiny") as client:
        await client.wait_until_ready(20)
        embedding = await client.embed(image(1))
        assert np.array_equal(embedding.vector, vector_of(image(1)))
        images = (image(number) for number in range(200))
        check([result async for result in client.stream(images)], 200)


def blocking(target: str) -> None:
    with featurewire.Client(
        target, model="tiny", retry=featurewire.RetryConfig(initial_backoff=0.01)
    ) as client:
        client.wait_until_ready(20)
        batch = client.embed_batch([image(1), b"", image(2)])
        assert {row: error.reason for row, error in batch.errors.items()} == {1: "empty"}
        assert np.asarray(batch[0], dtype=np.float64).shape == (8,)
        check(list(client.stream(image(number) for number in range(200))), 200)
        assert client.metadata().version == 1
        assert client.stats().retries > 0


def main() -> int:
    counter = itertools.count()

    def predict(images: list[bytes], context: grpc.ServicerContext) -> predict_pb2.PredictResponse:
        if next(counter) % 5 == 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        return reply_to(images, content=bool(next(counter) % 2))

    with Misbehaving(predict) as server:
        blocking(server.target)
        asyncio.run(asyncio.wait_for(asynchronous(server.target), 60))
    print("ok", version("grpcio"), version("protobuf"), version("numpy"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
