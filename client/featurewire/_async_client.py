"""`AsyncClient`: the asyncio shell over `_core`."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from types import TracebackType
from typing import Any

import grpc
import grpc.aio

from featurewire import _channel
from featurewire._async_driver import Driver
from featurewire._call import Flow, T
from featurewire._embedding import Embedding, EmbeddingBatch, Result
from featurewire._errors import ConfigError, ImageError
from featurewire._images import Buffer, Image, check_image, check_images, load, split_pair
from featurewire._settings import UNSET, Timeout
from featurewire._shell import Shell
from featurewire._status import ModelMetadata, ModelStatus
from featurewire._stream import Stream

__all__ = ["AsyncClient"]


class AsyncClient(Shell):
    """`Client` for asyncio: the same methods, as coroutines and async iterators.

    Belongs to the event loop in which it is first used. Use it as an async context manager, or
    `aclose` it.

        async with featurewire.AsyncClient("localhost:8500", model="inception_resnet_v2") as client:
            embedding = await client.embed(jpeg_bytes)

    For the arguments see `Client`.
    """

    def _connect(self) -> None:
        self._channels: list[grpc.aio.Channel] = []

    def _bound(self) -> list[grpc.aio.Channel]:
        """The channels; made in the loop that uses them."""
        self._connection.check_usable()
        loop = asyncio.get_running_loop()
        if self._connection.loop is None:
            self._connection.loop = loop
            self._channels += map(self._open, self._connection.servers)
        elif self._connection.loop is not loop:
            raise ConfigError(
                "this client belongs to another event loop; create one AsyncClient for each loop "
                "(each asyncio.run)"
            )
        return self._channels

    def _open(self, server: str) -> grpc.aio.Channel:
        config, tls = self._connection.channel, self._connection.tls
        # By name, as instrumentation that wraps these functions expects.
        arguments = _channel.arguments(config, tls) | {"interceptors": list(config.interceptors)}
        if tls is None:
            return grpc.aio.insecure_channel(server, **arguments)
        return grpc.aio.secure_channel(server, _channel.credentials(tls), **arguments)

    async def embed(self, image: Image, *, timeout: Timeout = UNSET) -> Embedding:
        """The feature vector of one image; see `Client.embed`."""
        check_image(image)
        deadline = self._deadline(timeout)
        return await self._run(self._core.embed(await _loaded(image), deadline))

    async def embed_batch(
        self, images: Iterable[Image], *, timeout: Timeout = UNSET
    ) -> EmbeddingBatch:
        """The feature vectors of some images, all made by one version; see `Client.embed_batch`."""
        check_images(images)
        deadline = self._deadline(timeout)
        loaded = [await _loaded(check_image(image)) for image in images]
        return await self._run(self._core.embed_batch(loaded, deadline))

    def stream(
        self,
        images: AsyncIterable[Image | tuple[Any, Image]] | Iterable[Image | tuple[Any, Image]],
        *,
        timeout: Timeout = UNSET,
    ) -> AsyncIterator[Result]:
        """Embed any number of images: yields one `Result` an image, in input order.

        As `Client.stream`, and `images` may be an async iterable too. A plain iterable is read in
        the event loop: one that blocks belongs into an async generator with `asyncio.to_thread`.
        """
        check_images(images, asynchronous=True)
        self._deadline(timeout)
        return self._stream(images, timeout)

    async def _stream(
        self,
        images: AsyncIterable[Image | tuple[Any, Image]] | Iterable[Image | tuple[Any, Image]],
        timeout: Timeout,
    ) -> AsyncIterator[Result]:
        stream = await self._run(self._core.stream(timeout))
        source = _Source(images, stream)
        reading: asyncio.Task[None] | None = None
        async with Driver(self._bound(), self._connection, stream) as driver:
            try:
                while not stream.finished:
                    driver.collect()
                    driver.start_due()
                    if reading is None and stream.wants():
                        reading = asyncio.ensure_future(source.read())
                    await driver.wait(reading)
                    if reading is not None and reading.done():
                        done, reading = reading, None
                        done.result()
                    for result in stream.take():
                        yield result
                for result in stream.take():
                    yield result
            finally:
                if reading is not None:
                    reading.cancel()
                    await asyncio.wait([reading])
        stream.raise_error()

    async def status(self, *, timeout: Timeout = UNSET) -> ModelStatus:
        """The model's versions and their states (of the pinned version alone, if one is)."""
        return await self._run(self._core.inquiry.status(self._deadline(timeout)))

    async def wait_until_ready(self, timeout: float | None = 60.0) -> ModelStatus:
        """Wait until the model is AVAILABLE; see `Client.wait_until_ready`."""
        self._connection.check_usable()
        return await self._run(self._core.inquiry.wait_until_ready(self._deadline(timeout)))

    async def metadata(self, *, timeout: Timeout = UNSET) -> ModelMetadata:
        """The signatures of the version that answers, and its manifest where it has one."""
        return await self._run(self._core.inquiry.metadata(self._deadline(timeout)))

    async def aclose(self) -> None:
        """Close the connection; calls that are open end with an error."""
        if self._connection.closed:
            return
        self._connection.closed = True
        if not self._connection.forked and self._connection.loop is asyncio.get_running_loop():
            for channel in self._channels:
                await channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _run(self, flow: Flow[T]) -> T:
        """Run a flow of the core to its result."""
        try:
            while True:
                step = next(flow)
                if isinstance(step, float):
                    await asyncio.sleep(step)
                    continue
                async with Driver(self._bound(), self._connection, step) as driver:
                    while not step.finished:
                        driver.start_due()
                        await driver.wait()
        except StopIteration as stop:
            result: T = stop.value
            return result


class _Source:
    """Brings images to a stream: an async iterable's one by one, a plain one's as it wants them."""

    def __init__(self, images: AsyncIterable[Any] | Iterable[Any], stream: Stream) -> None:
        self._stream = stream
        self._position = 0
        if isinstance(images, AsyncIterable):
            self._pending: AsyncIterator[Any] | None = images.__aiter__()
        else:
            self._pending, self._present = None, iter(images)

    async def read(self) -> None:
        stream = self._stream
        try:
            if self._pending is not None:
                await self._add(await self._pending.__anext__())
                return
            while stream.wants():
                try:
                    item = next(self._present)
                except StopIteration:
                    stream.end()
                else:
                    await self._add(item)
        except StopAsyncIteration:
            stream.end()
        except Exception as exc:
            stream.end(exc)

    async def _add(self, item: Any) -> None:
        key, image = split_pair(item, self._position)
        self._stream.add(key, await _loaded(image), time.monotonic())
        self._position += 1


async def _loaded(image: Image) -> Buffer | ImageError:
    try:
        if isinstance(image, os.PathLike):
            return await asyncio.to_thread(load, image)
        return load(image)
    except ImageError as error:
        return error
