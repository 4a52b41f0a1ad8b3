"""`AsyncClient`: the asyncio I/O around the core."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any, TypeVar, overload

import grpc.aio

from featurewire._config import UNSET, Timeout
from featurewire._core import Core
from featurewire._embedding import Embedding, EmbeddingBatch, Result
from featurewire._errors import ConfigError
from featurewire._flow import Collect, Deliver, Flow, Send, Sleep, Step, T, Wait
from featurewire._images import Image, Source, check_images
from featurewire._rpc.async_driver import Driver
from featurewire._rpc.call import Job
from featurewire._stream.stream import StreamProgress
from featurewire._wire.status import ModelMetadata, ModelStatus

K = TypeVar("K")


class AsyncClient(Core):
    """`Client` for asyncio: the same methods, as coroutines and async iterators.

    Belongs to the event loop in which it is first used. Use it as an async context manager, or
    `aclose` it.

        async with featurewire.AsyncClient("localhost:8500", model="inception_resnet_v2") as client:
            embedding = await client.embed(jpeg_bytes)

    See `Client` for the arguments.
    """

    _aio = grpc.aio

    def _driver(self, job: Job) -> Driver:
        """A driver in the running event loop, which must be the loop of the first call.

        gRPC's asyncio channels work only in the loop in which they were created.
        """
        self._connection.check_usable()
        loop = asyncio.get_running_loop()
        if self._connection.state.loop is None:
            self._connection.state.loop = loop
        elif self._connection.state.loop is not loop:
            raise ConfigError(
                "this client belongs to another event loop; create one AsyncClient per event "
                "loop (per asyncio.run)"
            )
        return Driver(self._method, self._connection, job)

    async def embed(self, image: Image, *, timeout: Timeout = UNSET) -> Embedding:
        """The feature vector of one image; see `Client.embed`."""
        return await self._run(self._embed(image, timeout))

    async def embed_batch(
        self, images: Iterable[Image], *, timeout: Timeout = UNSET
    ) -> EmbeddingBatch:
        """The feature vectors of some images, all made by one version; see `Client.embed_batch`."""
        return await self._run(self._embed_batch(images, timeout))

    @overload
    def stream(
        self,
        images: AsyncIterable[tuple[K, Source]] | Iterable[tuple[K, Source]],
        *,
        timeout: Timeout = UNSET,
        progress: Callable[[StreamProgress], object] | None = None,
    ) -> AsyncIterator[Result[K]]: ...

    @overload
    def stream(
        self,
        images: AsyncIterable[Source] | Iterable[Source],
        *,
        timeout: Timeout = UNSET,
        progress: Callable[[StreamProgress], object] | None = None,
    ) -> AsyncIterator[Result[int]]: ...

    def stream(
        self,
        images: AsyncIterable[Source | tuple[Any, Source]] | Iterable[Source | tuple[Any, Source]],
        *,
        timeout: Timeout = UNSET,
        progress: Callable[[StreamProgress], object] | None = None,
    ) -> AsyncIterator[Result[Any]]:
        """Embed any number of images: yields one `Result` per image, in input order.

        See `Client.stream`. Here `images` may also be an async iterable, which is read in the event
        loop.
        """
        check_images(images, asynchronous=True)
        self._deadline(timeout)
        return self._stream(images, timeout, progress)

    async def _stream(
        self,
        images: AsyncIterable[Any] | Iterable[Any],
        timeout: Timeout,
        progress: Callable[[StreamProgress], object] | None,
    ) -> AsyncIterator[Result[Any]]:
        stream = await self._run(self._new_stream(timeout))
        driver = self._driver(stream)
        prefetcher = self._prefetcher(stream, timeout, driver)
        source: asyncio.Task[None] | None = None
        if isinstance(images, AsyncIterable):
            source = prefetcher.start_async(images)
        else:
            prefetcher.start(images)
        try:
            for step in self._steps(stream, prefetcher, driver, progress):
                match step:
                    case Deliver(results):
                        for result in results:
                            yield result
                    case Collect(until):
                        await driver.wait(until)
                    case _:
                        await self._take(step)
        finally:
            prefetcher.close(wait=False)
            driver.close()
            if source is not None:
                source.cancel()
                await asyncio.wait([source])

    async def status(self, *, timeout: Timeout = UNSET) -> ModelStatus:
        """The model's versions and their states; with a pinned version, only that one."""
        return await self._run(self._queries.status(self._deadline(timeout)))

    async def wait_until_ready(self, timeout: float | None = 60.0) -> ModelStatus:
        """Wait until the model is AVAILABLE; see `Client.wait_until_ready`."""
        return await self._run(self._queries.wait_until_ready(self._deadline(timeout)))

    async def is_ready(self, timeout: float | None = 5.0) -> bool:
        """Whether the model is AVAILABLE now; see `Client.is_ready`."""
        return await self._run(self._queries.is_ready(self._deadline(timeout)))

    async def metadata(self, *, timeout: Timeout = UNSET) -> ModelMetadata:
        """The signatures of the version that answers, and its manifest if it has one."""
        return await self._run(self._queries.metadata(self._deadline(timeout)))

    async def aclose(self) -> None:
        """Close the connection; open calls end with an error."""
        if self._is_view or self._connection.state.closed:
            return
        self._connection.state.closed = True
        if (
            not self._connection.forked
            and self._connection.state.loop is asyncio.get_running_loop()
        ):
            for channel in list(self._channels):
                await channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def _run(self, flow: Flow[T]) -> T:
        """Run one of the core's flows and return its result."""
        try:
            while True:
                await self._take(next(flow))
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            flow.close()

    async def _take(self, step: Step) -> None:
        match step:
            case Send(job):
                driver = self._driver(job)
                try:
                    while not job.finished:
                        driver.start_due()
                        await driver.wait()
                finally:
                    driver.close()
            case Sleep(seconds):
                await asyncio.sleep(seconds)
            case Wait(future, until):
                left = until - time.monotonic()
                timeout = None if math.isinf(left) else left
                await asyncio.wait([asyncio.wrap_future(future)], timeout=timeout)
