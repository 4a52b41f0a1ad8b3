"""The steps of a client's methods, without their I/O.

A method with several steps is a generator that yields what it waits for, a `Job`, a number of
seconds, or a future and until when, and returns the result; both shells run it the same way.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from featurewire._call import Flow
from featurewire._codec import PREDICT, Codec, Names
from featurewire._connection import Connection
from featurewire._embedding import Embedding, EmbeddingBatch, Result
from featurewire._errors import (
    DeadlineExceededError,
    FeaturewireError,
    ImageError,
    ModelNotFoundError,
    VectorSpaceError,
)
from featurewire._images import Buffer, Image, load_all
from featurewire._inquiry import Inquiry
from featurewire._reading import Deliver, Reading
from featurewire._reply import Rows
from featurewire._settings import Settings, Timeout, Unset, check_timeout
from featurewire._stream import Stream, can_split

__all__ = ["Core"]

Loaded = Buffer | ImageError


class Core:
    def __init__(self, settings: Settings, connection: Connection) -> None:
        self.settings = settings
        self.connection = connection
        self.inquiry = Inquiry(settings, connection)
        self._codec: Codec | None = None
        # What decides about a signature's tensors.
        pinned = (settings.version, settings.label)
        self._key = (*pinned, settings.signature, settings.input, settings.output)

    def embed(self, image: Image, deadline: float) -> Flow[Embedding]:
        batch = yield from self.embed_batch([image], deadline)
        return batch[0]

    def embed_batch(self, given: Iterable[Image], deadline: float) -> Flow[EmbeddingBatch]:
        images = load_all(given)
        if isinstance(images, Future):
            yield images, deadline
            if not images.done():
                raise DeadlineExceededError(
                    "the files were not read in time; raise timeout=…, or look at their disk"
                )
            images = images.result()
        if not images:
            raise ValueError(
                "embed_batch got no images; leave the call out when there are none, or use "
                "stream(), which takes an empty iterable"
            )
        names = yield from self._names(deadline)
        codec, refusal = self._codec_for(names), None
        if (loaded := self._one_request(images)) is not None:
            call = self.connection.call(
                PREDICT,
                codec.build(loaded),
                hedged=True,
                decide=self.connection.policy,
                deadline=deadline,
            )
            yield call
            if call.error is None:
                assert call.reply is not None
                rows = codec.read(call.reply, len(loaded))
                self.connection.count(images=len(loaded), image_errors=len(rows.reasons))
                yield from self._check_space(rows.version, deadline)
                return _batch_of_rows(rows, self.settings.model)
            if not can_split(call.error):
                raise call.error
            refusal = call.error
        results = yield from self._results(images, codec, deadline, refusal)
        versions = {each.embedding.version for each in results if each.embedding is not None}
        if len(versions) > 1:
            # The server changed its version between two requests: one batch, one version.
            versions = {max(versions)}
            codec = self._codec_for(names, pinned=max(versions))
            results = yield from self._results(images, codec, deadline)
        version = next(iter(versions), 0)
        if version:
            yield from self._check_space(version, deadline)
        dimension = self.connection.dimensions.get(version, names.dimension or 0)
        return _batch_of_results(results, self.settings.model, version, dimension)

    def _one_request(self, images: Sequence[Loaded]) -> list[Buffer] | None:
        """The images, where a stream would send them all as one request; else None."""
        config = self.settings.stream
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
        """By a stream; `refusal`: what the server said to all images in one request."""
        stream = Stream(self.connection, codec, self.settings.stream, deadline=deadline)
        for position, image in enumerate(images):
            stream.add(position, image, 0.0)
        stream.end()
        if refusal is not None:
            stream.refused(refusal)
        yield stream
        stream.raise_error()
        return stream.take()

    def stream(self, timeout: Timeout) -> Flow[Stream]:
        """A stream without images yet."""
        deadline, config = self.deadline(timeout), self.settings.stream
        names = yield from self._names(deadline)
        pinned = None
        if config.pin_version and self.settings.version is None:
            pinned = yield from self.inquiry.current(deadline)
        codec = self._codec_for(names, pinned)
        return Stream(self.connection, codec, config, timeout=self._seconds(timeout))

    def reading(self, stream: Stream, timeout: Timeout, deliver: Deliver) -> Reading:
        """What reads the stream's source."""
        return Reading(stream, self.settings.stream.readers, self._seconds(timeout), deliver)

    def unsure(self, results: Sequence[Result[Any]]) -> Flow[None] | None:
        """What is to be asked before these results may be handed out, if anything."""
        space = self.settings.vector_space
        if space is None:
            return None
        for each in results:
            if each.error is None and self.connection.spaces.get(each.embedding.version) != space:
                version = each.embedding.version
                return self._check_space(version, self.deadline(self.settings.timeout))
        return None

    def _check_space(self, version: int, deadline: float) -> Flow[None]:
        """Raise where vectors of this version are not of the client's vector space."""
        wanted, spaces = self.settings.vector_space, self.connection.spaces
        if wanted is None or spaces.get(version) == wanted:
            return
        if version not in spaces:
            try:
                spaces[version] = yield from self.inquiry.space(version, deadline)
            except ModelNotFoundError as exc:
                raise VectorSpaceError(
                    f"{self.connection.target}, model {self.settings.model!r}: version {version} "
                    "was retired before its vector space could be read; send the images again"
                ) from exc
        if spaces[version] != wanted:
            has = spaces.pop(version)  # a version may be replaced by another under its number
            says = "names no vector space" if has is None else f"has the vector space {has!r}"
            raise VectorSpaceError(
                f"{self.connection.target}, model {self.settings.model!r}: version {version} "
                f"{says}, and {wanted!r} is wanted; pin a version of that space, or build the "
                "index anew"
            )

    def deadline(self, timeout: Timeout) -> float:
        """When a call that begins now has to end."""
        seconds = self._seconds(timeout)
        return math.inf if seconds is None else time.monotonic() + seconds

    def _seconds(self, timeout: Timeout) -> float | None:
        return self.settings.timeout if isinstance(timeout, Unset) else check_timeout(timeout)

    def _names(self, deadline: float) -> Flow[Names]:
        """The signature's tensors, asked for once."""
        connection, key = self.connection, self._key
        while (names := connection.names.get(key)) is None:
            with connection.lock:
                asked = connection.asking.get(key)
                if asked is None:
                    asking = connection.asking[key] = Future()
            if asked is not None:
                yield asked, deadline
                continue
            try:
                names = connection.names[key] = yield from self.inquiry.names(deadline)
            finally:
                del connection.asking[key]
                asking.set_result(None)
        return names

    def _codec_for(self, names: Names, pinned: int | None = None) -> Codec:
        codec = self._codec
        if pinned is None and codec is not None and codec.names is names:
            return codec
        spec = self.inquiry.spec(names.signature, pinned=pinned)
        connection = self.connection
        origin = f"{connection.target}, model {connection.model!r}"
        codec = Codec(spec, names, origin=origin, dimensions=connection.dimensions)
        if pinned is None:
            self._codec = codec
        return codec


def _batch_of_rows(rows: Rows, model: str) -> EmbeddingBatch:
    """Of one reply."""
    vectors, errors = rows.vectors.copy(), {}
    if rows.reasons:
        errors = {row: rows.error(row) for row in rows.reasons}
        vectors[list(errors)] = np.nan
    return EmbeddingBatch(vectors=vectors, version=rows.version, errors=errors, model=model)


def _batch_of_results(
    results: Sequence[Result[int]], model: str, version: int, dimension: int
) -> EmbeddingBatch:
    """Of several replies, all by one version."""
    vectors = np.full((len(results), dimension), np.nan, np.float32)
    errors = {}
    for row, result in enumerate(results):
        if result.embedding is not None:
            vectors[row] = result.embedding.vector
        elif result.error is not None:
            errors[row] = result.error
    return EmbeddingBatch(vectors=vectors, version=version, errors=errors, model=model)
