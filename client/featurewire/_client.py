"""`Client`: the blocking I/O around the core."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import wait
from typing import Any, TypeVar, overload

from featurewire._config import UNSET, Timeout
from featurewire._core import Core
from featurewire._embedding import Embedding, EmbeddingBatch, Result
from featurewire._flow import Collect, Deliver, Flow, Send, Sleep, Step, T, Wait
from featurewire._images import Image, Source, check_images
from featurewire._rpc.channel import close_all
from featurewire._rpc.driver import Driver
from featurewire._stream.stream import StreamProgress
from featurewire._wire.status import ModelMetadata, ModelStatus

K = TypeVar("K")


class Client(Core):
    """A model on TensorFlow Serving (or any server with its API), for embedding images.

    Threads may share it, and processes may not. Use it as a context manager, or call `close`.

        with featurewire.Client("localhost:8500", model="inception_resnet_v2") as client:
            embedding = client.embed(jpeg_bytes)

    Args:
        target: `host:port`, several of them separated by commas, or a gRPC target URI.
        model: The model's name on the server.
        version: Use this version. With neither `version` nor `label`: the newest AVAILABLE one.
        label: Follow the version that carries this label, such as `stable`.
        vector_space: The name in a version's manifest. Accept only vectors of this space, which
            the version makes itself or through a bridge (`Embedding.bridged`).
        timeout: Seconds for a whole call including its retries; in a stream, for one attempt of
            one request. None: no limit.
        retry, tls, channel, stream: See each class.
        signature: The signature to call.
        input: Its DT_STRING input. None: `image_bytes`, or the only input.
        output: Its DT_FLOAT `[N, dimension]` output. None: `features`, or the only output.

    Raises `ConfigError`. The client connects at its first call, so you may create it before a fork.
    """

    def embed(self, image: Image, *, timeout: Timeout = UNSET) -> Embedding:
        """The feature vector of one image.

        Raises `ImageError` if the image does not give a vector, other `FeaturewireError`s if the
        call fails, and `TypeError` if `image` is not an image.
        """
        return self._run(self._embed(image, timeout))

    def embed_batch(self, images: Iterable[Image], *, timeout: Timeout = UNSET) -> EmbeddingBatch:
        """The feature vectors of some images, all made by one version.

        They are sent in one Predict request, or in several at once if they are too many for one.
        Images without a vector are in the batch's `errors`. Raises other `FeaturewireError`s if the
        call fails, and `ValueError` if `images` is empty.
        """
        return self._run(self._embed_batch(images, timeout))

    @overload
    def stream(
        self,
        images: Iterable[tuple[K, Source]],
        *,
        timeout: Timeout = UNSET,
        progress: Callable[[StreamProgress], object] | None = None,
    ) -> Iterator[Result[K]]: ...

    @overload
    def stream(
        self,
        images: Iterable[Source],
        *,
        timeout: Timeout = UNSET,
        progress: Callable[[StreamProgress], object] | None = None,
    ) -> Iterator[Result[int]]: ...

    def stream(
        self,
        images: Iterable[Source | tuple[Any, Source]],
        *,
        timeout: Timeout = UNSET,
        progress: Callable[[StreamProgress], object] | None = None,
    ) -> Iterator[Result[Any]]:
        """Embed any number of images: yields one `Result` per image, in input order.

        `images` is read lazily on a separate thread, so a slow source does not delay results; a
        list or a tuple is read at once. Items are images, functions that return an image's bytes,
        or `(key, item)` pairs. An image without a vector yields a `Result` with an error. If the
        server fails for good, or `images` raises, the stream raises that error after the results
        that it has. `timeout` limits one attempt of one request, and the reading of one path or
        function, not the stream. `progress` is called before results are yielded.
        """
        check_images(images)
        self._deadline(timeout)
        return self._stream(images, timeout, progress)

    def _stream(
        self,
        images: Iterable[Source | tuple[Any, Source]],
        timeout: Timeout,
        progress: Callable[[StreamProgress], object] | None,
    ) -> Iterator[Result[Any]]:
        stream = self._run(self._new_stream(timeout))
        driver = Driver(self._method, self._connection, stream)
        prefetcher = self._prefetcher(stream, timeout, driver)
        prefetcher.start(images)
        try:
            for step in self._steps(stream, prefetcher, driver, progress):
                match step:
                    case Deliver(results):
                        yield from results
                    case Collect(until):
                        driver.wait(until)
                    case _:
                        self._take(step)
        finally:
            prefetcher.close()
            driver.close()

    def status(self, *, timeout: Timeout = UNSET) -> ModelStatus:
        """The model's versions and their states; with a pinned version, only that one."""
        return self._run(self._queries.status(self._deadline(timeout)))

    def wait_until_ready(self, timeout: float | None = 60.0) -> ModelStatus:
        """Wait until the model (the pinned version, if one is) is AVAILABLE.

        Raises `ServerUnavailableError` if no server answers within `timeout` seconds,
        `DeadlineExceededError` if the model is not AVAILABLE by then, and `ServerError` if it
        cannot be loaded.
        """
        return self._run(self._queries.wait_until_ready(self._deadline(timeout)))

    def is_ready(self, timeout: float | None = 5.0) -> bool:
        """Ask once whether the model (the pinned version, if one is) is AVAILABLE.

        Returns False also if no server answers within `timeout` seconds. Raises only `ConfigError`.
        """
        return self._run(self._queries.is_ready(self._deadline(timeout)))

    def metadata(self, *, timeout: Timeout = UNSET) -> ModelMetadata:
        """The signatures of the version that answers, and its manifest if it has one."""
        return self._run(self._queries.metadata(self._deadline(timeout)))

    def close(self) -> None:
        """Close the connection; open calls end with an error."""
        if self._is_view or self._connection.state.closed:
            return
        self._connection.state.closed = True
        if not self._connection.forked:
            close_all(list(self._channels))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _run(self, flow: Flow[T]) -> T:
        """Run one of the core's flows and return its result."""
        try:
            while True:
                self._take(next(flow))
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            flow.close()

    def _take(self, step: Step) -> None:
        match step:
            case Send(job):
                driver = Driver(self._method, self._connection, job)
                try:
                    driver.run()
                finally:
                    driver.close()
            case Sleep(seconds):
                time.sleep(seconds)
            case Wait(future, until):
                left = until - time.monotonic()
                wait([future], None if math.isinf(left) else max(left, 0.0))
