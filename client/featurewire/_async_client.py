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
from featurewire._config import ChannelConfig, RetryConfig, StreamConfig, TLSConfig
from featurewire._core import DEFAULT_TIMEOUT, UNSET, Core, Timeout, Unset
from featurewire._embedding import Embedding, EmbeddingBatch, Result
from featurewire._errors import ConfigError, ImageError
from featurewire._images import Buffer, Image, check_image, check_images, load, split_pair
from featurewire._stats import Stats
from featurewire._status import ModelMetadata, ModelStatus
from featurewire._stream import Stream

__all__ = ["AsyncClient"]


class AsyncClient:
    """`Client` for asyncio: the same methods, as coroutines and async iterators.

    Belongs to the event loop in which it is first used. Use it as an async context manager, or
    `aclose` it.

        async with featurewire.AsyncClient("localhost:8500", model="inception_resnet_v2") as client:
            embedding = await client.embed(jpeg_bytes)

    For the arguments see `Client`.
    """

    def __init__(
        self,
        target: str,
        *,
        model: str,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        retry: RetryConfig = RetryConfig(),  # noqa: B008
        tls: TLSConfig | None = None,
        channel: ChannelConfig = ChannelConfig(),  # noqa: B008
        stream: StreamConfig = StreamConfig(),  # noqa: B008
        signature: str = "serving_default",
        input: str | None = None,
        output: str | None = None,
    ) -> None:
        self._core = Core(
            target,
            model=model,
            version=version,
            label=label,
            timeout=timeout,
            retry=retry,
            tls=tls,
            channel=channel,
            stream=stream,
            signature=signature,
            input=input,
            output=output,
        )
        self._channels: list[grpc.aio.Channel] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def _connect(self) -> list[grpc.aio.Channel]:
        """The channels; made in the loop that uses them."""
        self._core.check_usable()
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._channels = [self._open(server) for server in self._core.servers]
        elif self._loop is not loop:
            raise ConfigError(
                "this client belongs to another event loop; create one AsyncClient for each loop "
                "(each asyncio.run)"
            )
        return self._channels

    def _open(self, server: str) -> grpc.aio.Channel:
        core = self._core
        # By name, as instrumentation that wraps these functions expects.
        arguments = {
            "options": _channel.channel_options(core.channel, core.tls),
            "compression": _channel.compression(core.channel),
            "interceptors": list(core.channel.interceptors),
        }
        if core.tls is None:
            return grpc.aio.insecure_channel(server, **arguments)
        return grpc.aio.secure_channel(server, _channel.credentials(core.tls), **arguments)

    async def embed(self, image: Image, *, timeout: Timeout = UNSET) -> Embedding:
        """The feature vector of one image; see `Client.embed`."""
        check_image(image)
        self._core.check_usable()
        deadline = self._core.deadline(timeout)
        return await self._run(self._core.embed(await _loaded(image), deadline))

    async def embed_batch(
        self, images: Iterable[Image], *, timeout: Timeout = UNSET
    ) -> EmbeddingBatch:
        """The feature vectors of some images, all made by one version; see `Client.embed_batch`."""
        check_images(images)
        self._core.check_usable()
        deadline = self._core.deadline(timeout)
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
        self._core.check_usable()
        self._core.deadline(timeout)
        return self._stream(images, timeout)

    async def _stream(
        self,
        images: AsyncIterable[Image | tuple[Any, Image]] | Iterable[Image | tuple[Any, Image]],
        timeout: Timeout,
    ) -> AsyncIterator[Result]:
        core = self._core
        names = await self._run(core.inquiry.names(core.deadline(timeout)))
        stream = core.new_stream(
            names, timeout=core.timeout if isinstance(timeout, Unset) else timeout
        )
        source = _Source(images, stream)
        reading: asyncio.Task[None] | None = None
        async with Driver(self._connect(), core, stream) as driver:
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
        self._core.check_usable()
        return await self._run(self._core.inquiry.status(self._core.deadline(timeout)))

    async def wait_until_ready(self, timeout: float | None = 60.0) -> ModelStatus:
        """Wait until the model is AVAILABLE; see `Client.wait_until_ready`."""
        self._core.check_usable()
        return await self._run(self._core.inquiry.wait_until_ready(self._core.deadline(timeout)))

    async def metadata(self, *, timeout: Timeout = UNSET) -> ModelMetadata:
        """The signatures of the version that answers, and its manifest where it has one."""
        self._core.check_usable()
        return await self._run(self._core.inquiry.metadata(self._core.deadline(timeout)))

    def stats(self) -> Stats:
        """What this client has seen so far."""
        return self._core.stats()

    async def aclose(self) -> None:
        """Close the connection; calls that are open end with an error."""
        if self._core.closed:
            return
        self._core.closed = True
        if not self._core.forked and self._loop is asyncio.get_running_loop():
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
                async with Driver(self._connect(), self._core, step) as driver:
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
