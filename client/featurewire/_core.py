"""The steps of a client's methods, without their I/O.

A method with several steps is a generator that yields what it waits for, a `Job` or a number of
seconds, and returns the result; both shells run it the same way.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np

from featurewire._call import Flow
from featurewire._codec import PREDICT, Codec, Names
from featurewire._connection import Connection
from featurewire._embedding import Embedding, EmbeddingBatch, Result
from featurewire._errors import FeaturewireError, ImageError
from featurewire._images import Buffer
from featurewire._inquiry import Inquiry
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

    def embed(self, image: Loaded, deadline: float) -> Flow[Embedding]:
        batch = yield from self.embed_batch([image], deadline)
        return batch[0]

    def embed_batch(self, images: Sequence[Loaded], deadline: float) -> Flow[EmbeddingBatch]:
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
        dimensions = self.connection.dimensions
        version = next(iter(versions)) if versions else max(dimensions, default=0)
        return _batch_of_results(results, self.settings.model, version, dimensions.get(version, 0))

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
    ) -> Flow[list[Result]]:
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
        names = yield from self._names(self.deadline(timeout))
        seconds = self._seconds(timeout)
        return Stream(
            self.connection, self._codec_for(names), self.settings.stream, timeout=seconds
        )

    def deadline(self, timeout: Timeout) -> float:
        """When a call that begins now has to end."""
        seconds = self._seconds(timeout)
        return math.inf if seconds is None else time.monotonic() + seconds

    def _seconds(self, timeout: Timeout) -> float | None:
        return self.settings.timeout if isinstance(timeout, Unset) else check_timeout(timeout)

    def _names(self, deadline: float) -> Flow[Names]:
        """The signature's tensors, asked for once."""
        known, key = self.connection.names, self._key
        if (names := known.get(key)) is None:
            names = known[key] = yield from self.inquiry.names(deadline)
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
    results: Sequence[Result], model: str, version: int, dimension: int
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
