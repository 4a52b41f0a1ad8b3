"""The client without its I/O; `Client` and `AsyncClient` add that.

A method is a `Flow`: a generator that yields every step that does I/O or waits, and returns the
result. Both clients run these steps the same way.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from featurewire import _DEFAULT_TIMEOUT
from featurewire._config import (
    CONFIGS,
    UNSET,
    ChannelConfig,
    Metadata,
    RetryConfig,
    Settings,
    StreamConfig,
    Timeout,
    TLSConfig,
    Unset,
    check_timeout,
    names_checked,
)
from featurewire._embedding import Embedding, EmbeddingBatch, Result
from featurewire._errors import (
    DeadlineExceededError,
    FeaturewireError,
    ImageError,
    is_transient,
    lacks_signature,
)
from featurewire._flow import Collect, Deliver, Flow, Send, Sleep, StreamStep, T, Wait
from featurewire._images import Buffer, Image, check_images, load_all
from featurewire._model.cache import Cache
from featurewire._model.queries import Queries
from featurewire._model.resolver import Resolver
from featurewire._rpc.channel import Channels
from featurewire._rpc.connection import Connection
from featurewire._rpc.driver import AnyDriver, Method
from featurewire._rpc.retry import wait_before_retry
from featurewire._rpc.stats import Stats
from featurewire._stream.circuit_breaker import CircuitBreaker
from featurewire._stream.prefetcher import Prefetcher
from featurewire._stream.stream import Stream, StreamProgress, can_split
from featurewire._wire.predict import PREDICT, Codec
from featurewire._wire.replies import Rows

if TYPE_CHECKING:
    from typing import Self

Loaded = Buffer | ImageError


class Core:
    """See `Client` for the arguments."""

    _is_view = False

    _aio: Any = None
    """`grpc.aio` in `AsyncClient`, None in `Client`."""

    @names_checked(CONFIGS)
    def __init__(
        self,
        target: str,
        *,
        model: str,
        version: int | None = None,
        label: str | None = None,
        vector_space: str | None = None,
        timeout: float | None = _DEFAULT_TIMEOUT,
        retry: RetryConfig = RetryConfig(),  # noqa: B008
        tls: TLSConfig | None = None,
        channel: ChannelConfig = ChannelConfig(),  # noqa: B008
        stream: StreamConfig = StreamConfig(),  # noqa: B008
        signature: str = "serving_default",
        input: str | None = None,
        output: str | None = None,
    ) -> None:
        settings = Settings(
            target=target,
            model=model,
            version=version,
            label=label,
            vector_space=vector_space,
            timeout=timeout,
            retry=retry,
            tls=tls,
            channel=channel,
            stream=stream,
            signature=signature,
            input=input,
            output=output,
        )
        connection = Connection(settings)
        self._channels = Channels(connection.servers, settings.channel, settings.tls, aio=self._aio)
        self._method: Method = self._channels.method
        self._cache = Cache()
        self._share(connection, settings)

    def _share(self, connection: Connection, settings: Settings) -> None:
        self._connection, self._settings = connection, settings
        self._queries = Queries(settings, connection)
        self._resolver = Resolver(settings, self._queries, self._cache)

    def with_options(
        self,
        *,
        timeout: Timeout = UNSET,
        version: int | Unset | None = UNSET,
        label: str | Unset | None = UNSET,
        vector_space: str | Unset | None = UNSET,
        metadata: Metadata = (),
    ) -> Self:
        """A view of this client with other options. It shares the connection, so it is cheap.

        `version` and `label` replace each other. `metadata` is added to the client's own metadata
        and replaces values with the same key. Close the original client: this also ends its views.
        """
        given = {
            "timeout": timeout,
            "version": version,
            "label": label,
            "vector_space": vector_space,
        }
        changes: dict[str, Any] = {
            name: value for name, value in given.items() if not isinstance(value, Unset)
        }
        if changes.get("version") is not None:
            changes.setdefault("label", None)
        if changes.get("label") is not None:
            changes.setdefault("version", None)
        view = object.__new__(type(self))
        vars(view).update(vars(self))
        view._is_view = True
        view._share(self._connection.view(metadata), replace(self._settings, **changes))
        return view

    def stats(self) -> Stats:
        """This client's counters since it was created."""
        return self._connection.stats()

    def __repr__(self) -> str:
        settings = self._settings
        parts = [repr(settings.target), f"model={settings.model!r}"]
        for name in ("version", "label", "vector_space"):
            if (value := getattr(settings, name)) is not None:
                parts.append(f"{name}={value!r}")
        closed = " (closed)" if self._connection.state.closed else ""
        return f"{type(self).__name__}({', '.join(parts)}){closed}"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be pickled: its connection belongs to this process; "
            "make one in each process, such as in a pool's initializer"
        )

    def _seconds(self, timeout: Timeout) -> float | None:
        return self._settings.timeout if isinstance(timeout, Unset) else check_timeout(timeout)

    def _deadline(self, timeout: Timeout) -> float:
        """The deadline of a call that begins now, on the monotonic clock."""
        self._connection.check_usable()
        seconds = self._seconds(timeout)
        return math.inf if seconds is None else time.monotonic() + seconds

    # `embed` and `embed_batch`.

    def _embed(self, image: Image, timeout: Timeout) -> Flow[Embedding]:
        batch = yield from self._embed_batch([image], timeout)
        return batch[0]

    def _embed_batch(self, given: Iterable[Image], timeout: Timeout) -> Flow[EmbeddingBatch]:
        check_images(given)
        deadline = self._deadline(timeout)
        images = load_all(given)
        if isinstance(images, Future):
            yield Wait(images, deadline)
            if not images.done():
                raise DeadlineExceededError("timed out while reading the images", advice="files")
            images = images.result()
        if not images:
            raise ValueError(
                "embed_batch needs at least one image; stream() also takes an empty iterable"
            )
        connection, settings, refusal = self._connection, self._settings, None
        codec = yield from self._resolver.codec(deadline)
        if (loaded := self._one_request(images)) is not None:
            call = connection.call(
                PREDICT,
                codec.build(loaded),
                hedged=True,
                decide=connection.policy,
                deadline=deadline,
            )
            yield Send(call)
            if call.error is None:
                assert call.reply is not None
                rows = codec.read(call.reply, len(loaded))
                if codec.fits(rows.version):
                    connection.count(images=len(loaded), image_errors=len(rows.reasons))
                    return _batch_of_rows(rows, settings.model, codec.names.bridged)
                codec, _ = yield from self._resolver.resolve(rows.version, deadline)
            elif codec.names.bridged and settings.version is None and lacks_signature(call.error):
                codec, _ = yield from self._resolver.resolve(0, deadline)
            elif not can_split(call.error):
                self._resolver.note(call.error)
                raise call.error
            else:
                refusal = call.error
        results = yield from self._results(images, codec, deadline, refusal)
        versions = {each.embedding.version for each in results if each.embedding is not None}
        if len(versions) > 1:
            # The server switched versions between two requests. A batch must come from one version.
            _, codec = yield from self._resolver.resolve(max(versions), deadline)
            results = yield from self._results(images, codec, deadline)
        return _batch_of_results(results, settings.model, codec.names.dimension or 0)

    def _one_request(self, images: Sequence[Loaded]) -> list[Buffer] | None:
        """The images if they all fit into one request and could all be read; else None."""
        config = self._settings.stream
        loaded = [image for image in images if not isinstance(image, ImageError)]
        if not len(loaded) == len(images) <= config.images_per_request:
            return None
        if len(loaded) > 1 and sum(map(len, loaded)) > config.bytes_per_request:
            return None
        return loaded

    def _results(
        self,
        images: Sequence[Loaded],
        codec: Codec,
        deadline: float,
        refusal: FeaturewireError | None = None,
    ) -> Flow[list[Result[int]]]:
        """Embed the images through a bounded stream.

        `refusal`: the server's error for a request with all of these images. The stream then splits
        that request to find the image at fault.
        """
        stream = Stream(self._connection, codec, self._settings.stream, deadline=deadline)
        for position, image in enumerate(images):
            stream.fill(stream.open(position), image, 0.0)
        stream.end()
        if refusal is not None:
            stream.refused(refusal)
        yield Send(stream)
        while stream.wrong_space_version is not None:
            yield from self._redirect(stream, deadline)
            yield Send(stream)
        self._raise_error(stream)
        return stream.take()

    # `stream`.

    def _new_stream(self, timeout: Timeout) -> Flow[Stream]:
        """A stream without images yet."""
        config = self._settings.stream
        codec = yield from self._patiently(self._resolver.codec, timeout)
        if config.pin_version and self._settings.version is None:
            resolve = functools.partial(self._resolver.resolve, 0)
            _, codec = yield from self._patiently(resolve, timeout)
        return Stream(self._connection, codec, config, timeout=self._seconds(timeout))

    def _patiently(self, ask: Callable[[float], Flow[T]], timeout: Timeout) -> Flow[T]:
        """Run a query that precedes a stream, with the retries of a stream.

        `ask` takes a deadline. Each attempt gets `timeout` seconds.
        """
        retry, expired, failures = self._settings.retry, 0, 0
        breaker = CircuitBreaker(retry, self._settings.stream.patience)
        while True:
            try:
                return (yield from ask(self._deadline(timeout)))
            except DeadlineExceededError:
                expired += 1
                if expired >= retry.max_attempts or not breaker.record_failure(time.monotonic()):
                    raise
            except FeaturewireError as error:
                failures += 1
                wait = wait_before_retry(retry, failures, error)
                transient = is_transient(error) and self._connection.answered
                if not transient or wait is None or not breaker.record_failure(time.monotonic()):
                    raise
                yield Sleep(wait)

    def _prefetcher(self, stream: Stream, timeout: Timeout, driver: AnyDriver) -> Prefetcher:
        """The reader of the stream's source."""
        readers = self._settings.stream.readers
        return Prefetcher(stream, readers, self._seconds(timeout), driver.deliver)

    def _steps(
        self,
        stream: Stream,
        prefetcher: Prefetcher,
        driver: AnyDriver,
        progress: Callable[[StreamProgress], object] | None,
    ) -> Iterator[StreamStep]:
        """The steps of a stream, from its first image to its last result."""
        finished = False
        while not finished:
            # Collect first: after a slow consumer, a call whose reply is already here would
            # otherwise be hedged.
            driver.collect()
            if stream.wrong_space_version is not None:
                yield from self._redirect(stream, None)
            prefetcher.ask()
            while driver.start_due():
                prefetcher.ask()
            yield Collect(prefetcher.wake_at())
            prefetcher.give_up(time.monotonic())
            finished = stream.finished and stream.wrong_space_version is None
            if results := stream.take():
                if progress is not None:
                    progress(stream.progress)
                given = time.monotonic()
                yield Deliver(results)
                stream.add_paused_time(time.monotonic() - given)
        self._raise_error(stream)

    def _raise_error(self, stream: Stream) -> None:
        """Raise the error that ended the stream, if any."""
        if (error := stream.error) is None:
            return
        if isinstance(error, FeaturewireError):
            self._resolver.note(error)
        raise error

    def _redirect(self, stream: Stream, deadline: float | None) -> Flow[None]:
        """Find a version with vectors of the wanted space; end the stream if there is none."""
        while stream.wrong_space_version is not None:
            resolve = functools.partial(self._resolver.resolve, stream.wrong_space_version)
            try:
                if deadline is None:
                    codec, pinned = yield from self._patiently(resolve, UNSET)
                else:
                    codec, pinned = yield from resolve(deadline)
            except FeaturewireError as error:
                stream.fail_reroute(error)
            else:
                stream.redirect(codec, pinned)


def _batch_of_rows(rows: Rows, model: str, bridged: bool) -> EmbeddingBatch:
    """The batch in one reply."""
    vectors, errors = rows.vectors.copy(), {}
    if rows.reasons:
        errors = {row: rows.error(row) for row in rows.reasons}
        vectors[list(errors)] = np.nan
    return EmbeddingBatch(vectors, rows.version, errors, model, bridged)


def _batch_of_results(results: Sequence[Result[int]], model: str, dimension: int) -> EmbeddingBatch:
    """One batch from several replies, all by one version.

    `dimension` is used if no image gave a vector.
    """
    first = next((each.embedding for each in results if each.embedding is not None), None)
    version, bridged = (first.version, first.bridged) if first is not None else (0, False)
    dimension = len(first) if first is not None else dimension
    vectors = np.full((len(results), dimension), np.nan, np.float32)
    errors = {}
    for row, result in enumerate(results):
        if result.embedding is not None:
            vectors[row] = result.embedding.vector
        elif result.error is not None:
            errors[row] = result.error
    return EmbeddingBatch(vectors, version, errors, model, bridged)
