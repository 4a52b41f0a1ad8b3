"""`Client`: the blocking shell over `_core`."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

import grpc

from featurewire import _channel
from featurewire._call import Flow, T
from featurewire._driver import Driver
from featurewire._embedding import Embedding, EmbeddingBatch, Result
from featurewire._errors import ImageError
from featurewire._images import Buffer, Image, check_image, check_images, load, split_pair
from featurewire._settings import UNSET, Timeout
from featurewire._shell import Shell
from featurewire._status import ModelMetadata, ModelStatus

__all__ = ["Client"]


class Client(Shell):
    """A model on TensorFlow Serving (or any server with its API), for embedding images.

    Safe to share between threads, not between processes. Use it as a context manager, or `close`
    it.

        with featurewire.Client("localhost:8500", model="inception_resnet_v2") as client:
            embedding = client.embed(jpeg_bytes)

    Args:
        target: `host:port`, several with commas between, or a gRPC target URI.
        model: The model's name on the server.
        version: Pin this version. Neither: the newest that is AVAILABLE.
        label: Pin the version that carries this label, such as `stable`.
        timeout: Seconds for a whole call, its retries included; in a stream, for one attempt of
            one request. None: no limit.
        retry, tls, channel, stream: See each class.
        signature: The signature to call.
        input: Its DT_STRING input. None: `image_bytes`, or the only one.
        output: Its DT_FLOAT `[N, dimension]` output. None: `features`, or the only one.

    Raises `ConfigError`. Connects when first used.
    """

    def _connect(self) -> None:
        channels = self._channels = [self._open(server) for server in self._connection.servers]
        self._method = functools.cache(lambda server, name: channels[server].unary_unary(name))

    def _open(self, server: str) -> grpc.Channel:
        config, tls = self._connection.channel, self._connection.tls
        arguments = _channel.arguments(config, tls)
        if tls is None:
            channel = grpc.insecure_channel(server, **arguments)
        else:
            channel = grpc.secure_channel(server, _channel.credentials(tls), **arguments)
        if config.interceptors:
            channel = grpc.intercept_channel(channel, *config.interceptors)
        return channel

    def embed(self, image: Image, *, timeout: Timeout = UNSET) -> Embedding:
        """The feature vector of one image.

        Raises `ImageError` when the image gives none, other `FeaturewireError`s when the call
        fails, `TypeError` when `image` is no image.
        """
        check_image(image)
        return self._run(self._core.embed(load(image), self._deadline(timeout)))

    def embed_batch(self, images: Iterable[Image], *, timeout: Timeout = UNSET) -> EmbeddingBatch:
        """The feature vectors of some images, all made by one version.

        Sent as one Predict request, or as several at once when they are too many for one. An image
        that gives no vector is in `errors` of the batch. Raises other `FeaturewireError`s when the
        call fails, `ValueError` when there are no images.
        """
        check_images(images)
        deadline = self._deadline(timeout)
        loaded = [_loaded(check_image(image)) for image in images]
        return self._run(self._core.embed_batch(loaded, deadline))

    def stream(
        self, images: Iterable[Image | tuple[Any, Image]], *, timeout: Timeout = UNSET
    ) -> Iterator[Result]:
        """Embed any number of images: yields one `Result` an image, in input order.

        `images` is read lazily, on the caller's thread, as requests need them; items are images or
        `(key, image)` pairs. An image that gives no vector is a `Result` with an error. When the
        server fails for good, or `images` raises, the stream raises that after what was answered.
        `timeout` bounds one attempt of one request, not the stream.
        """
        check_images(images)
        self._deadline(timeout)
        return self._stream(images, timeout)

    def _stream(
        self, images: Iterable[Image | tuple[Any, Image]], timeout: Timeout
    ) -> Iterator[Result]:
        stream = self._run(self._core.stream(timeout))
        source, position = iter(images), 0
        with Driver(self._method, self._connection, stream) as driver:
            while not stream.finished:
                # First, so that what has its reply is not hedged after a long look at a result.
                driver.collect()
                driver.start_due()
                if stream.wants():
                    try:
                        key, image = split_pair(next(source), position)
                        stream.add(key, _loaded(image), time.monotonic())
                        position += 1
                    except StopIteration:
                        stream.end()
                    except Exception as exc:
                        stream.end(exc)
                else:
                    driver.wait()
                yield from stream.take()
            yield from stream.take()
        stream.raise_error()

    def status(self, *, timeout: Timeout = UNSET) -> ModelStatus:
        """The model's versions and their states (of the pinned version alone, if one is)."""
        return self._run(self._core.inquiry.status(self._deadline(timeout)))

    def wait_until_ready(self, timeout: float | None = 60.0) -> ModelStatus:
        """Wait until the model (the pinned version, if one is) is AVAILABLE.

        Raises `ServerUnavailableError` when nobody has answered after `timeout` seconds,
        `DeadlineExceededError` when the model is not AVAILABLE by then, `ServerError` when it
        cannot be loaded.
        """
        return self._run(self._core.inquiry.wait_until_ready(self._deadline(timeout)))

    def metadata(self, *, timeout: Timeout = UNSET) -> ModelMetadata:
        """The signatures of the version that answers, and its manifest where it has one."""
        return self._run(self._core.inquiry.metadata(self._deadline(timeout)))

    def close(self) -> None:
        """Close the connection; calls that are open end with an error."""
        if self._connection.closed:
            return
        self._connection.closed = True
        if not self._connection.forked:
            _channel.close_all(self._channels)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, flow: Flow[T]) -> T:
        """Run a flow of the core to its result."""
        try:
            while True:
                step = next(flow)
                if isinstance(step, float):
                    time.sleep(step)
                    continue
                with Driver(self._method, self._connection, step) as driver:
                    driver.run()
        except StopIteration as stop:
            result: T = stop.value
            return result


def _loaded(image: Image) -> Buffer | ImageError:
    try:
        return load(image)
    except ImageError as error:
        return error
