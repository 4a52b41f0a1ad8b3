"""The steps of a client's methods, without their I/O.

A method with several steps is a generator that yields what it waits for, a `Job`, a number of
seconds, or a future and until when, and returns the result; both shells run it the same way.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future

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
    lacks_signature,
)
from featurewire._images import Buffer, Image, load_all
from featurewire._inquiry import Inquiry
from featurewire._reading import Deliver, Reading
from featurewire._reply import Rows
from featurewire._retry import is_transient
from featurewire._settings import Settings, Timeout, Unset, check_timeout
from featurewire._stream import Stream, can_split

__all__ = ["Core"]

Loaded = Buffer | ImageError

RESOLUTIONS = 5
"""So often a version may be retired before its vector space is read."""


class Core:
    def __init__(self, settings: Settings, connection: Connection) -> None:
        self.settings = settings
        self.connection = connection
        self.inquiry = Inquiry(settings, connection)
        self._codec: Codec | None = None
        # What decides about the signature to call, and its tensors.
        pinned, tensors = (settings.version, settings.label), (settings.input, settings.output)
        self._key = (*pinned, settings.signature, *tensors, settings.vector_space)

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
                if codec.fits(rows.version):
                    self.connection.count(images=len(loaded), image_errors=len(rows.reasons))
                    return _batch_of_rows(rows, self.settings.model, names.bridged)
                names, _ = yield from self._resolve(rows.version, deadline)
            elif names.bridged and self.settings.version is None and lacks_signature(call.error):
                names, _ = yield from self._resolve(0, deadline)
            elif not can_split(call.error):
                raise call.error
            else:
                refusal = call.error
        codec = self._codec_for(names)
        results = yield from self._results(images, codec, deadline, refusal)
        versions = {each.embedding.version for each in results if each.embedding is not None}
        if len(versions) > 1:
            # The server changed its version between two requests: one batch, one version.
            names, pinned = yield from self._resolve(max(versions), deadline)
            codec = self._codec_for(names, pinned)
            results = yield from self._results(images, codec, deadline)
        return _batch_of_results(results, self.settings.model, names.dimension or 0)

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
        while (question := self.question(stream, deadline)) is not None:
            yield from question
            yield stream
        stream.raise_error()
        return stream.take()

    def stream(self, timeout: Timeout) -> Flow[Stream]:
        """A stream without images yet."""
        deadline, config = self.deadline(timeout), self.settings.stream
        names = yield from self._names(deadline)
        pinned = None
        if config.pin_version and self.settings.version is None:
            names, pinned = yield from self._resolve(0, deadline)
        codec = self._codec_for(names, pinned)
        return Stream(self.connection, codec, config, timeout=self._seconds(timeout))

    def reading(self, stream: Stream, timeout: Timeout, deliver: Deliver) -> Reading:
        """What reads the stream's source."""
        return Reading(stream, self.settings.stream.readers, self._seconds(timeout), deliver)

    def question(self, stream: Stream, deadline: float | None = None) -> Flow[None] | None:
        """What is to be asked before the stream can go on, if anything."""
        return None if stream.astray is None else self._redirect(stream, deadline)

    def _redirect(self, stream: Stream, deadline: float | None) -> Flow[None]:
        patient_until = time.monotonic()
        if deadline is None:
            patient_until += self.settings.stream.patience
        while stream.astray is not None:
            until = self.deadline(self.settings.timeout) if deadline is None else deadline
            try:
                names, version = yield from self._resolve(stream.astray, until)
            except FeaturewireError as error:
                if is_transient(error) and time.monotonic() < patient_until:
                    yield self.settings.retry.max_backoff
                    continue
                stream.lose(error)
            else:
                stream.redirect(self._codec_for(names), self._codec_for(names, pinned=version))

    def _resolve(self, version: int, deadline: float) -> Flow[tuple[Names, int]]:
        """What to call, and a version that answers it with vectors of the space that is wanted.

        `version`: what answered the last time, 0 for not known. Raises `VectorSpaceError` where
        this version, or the one that the label has moved to, has no such space.
        """
        for left in reversed(range(RESOLUTIONS)):
            version = version or (yield from self.inquiry.current(deadline))
            try:
                names = yield from self._names_of(version, deadline)
            except ModelNotFoundError:  # it was retired meanwhile
                if not left:
                    raise
                version = 0
            else:
                self.connection.names[self._key] = names
                return names, version
        raise AssertionError

    def _names_of(self, version: int, deadline: float) -> Flow[Names]:
        """What to call of this version. Raises `VectorSpaceError`."""
        asked, wanted = (yield from self._asked(deadline)), self.settings.vector_space
        if wanted is None:
            return asked
        connection = self.connection
        if version not in connection.spaces:
            connection.spaces[version] = yield from self.inquiry.spaces(version, deadline)
        names = connection.spaces[version].names(wanted, asked, version)
        if names is not None:
            connection.answering.setdefault((wanted, names.signature), set()).add(version)
            return names
        # A version may be replaced by another under its number.
        has = connection.spaces.pop(version).native
        says = "names no vector space" if has is None else f"has the vector space {has!r}"
        raise VectorSpaceError(
            f"{connection.target}, model {self.settings.model!r}: version {version} {says}, and "
            f"{wanted!r} is wanted, to which it has no bridge; pin a version of that space, or "
            "build the index anew"
        )

    def deadline(self, timeout: Timeout) -> float:
        """When a call that begins now has to end."""
        seconds = self._seconds(timeout)
        return math.inf if seconds is None else time.monotonic() + seconds

    def _seconds(self, timeout: Timeout) -> float | None:
        return self.settings.timeout if isinstance(timeout, Unset) else check_timeout(timeout)

    def _names(self, deadline: float) -> Flow[Names]:
        """What to call, as far as is known: a reply tells whether it is right."""
        names = self.connection.names.get(self._key)
        if names is None:
            names = yield from self._asked(deadline)
            if self.settings.vector_space is not None and names.version:
                # The tensors may be known from a version that answers no more.
                names, _ = yield from self._resolve(0, deadline)
        return names

    def _asked(self, deadline: float) -> Flow[Names]:
        """The tensors of the signature that the client was made with, asked for once."""
        connection, key = self.connection, (*self._key[:-1], None)
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
        versions, wanted = None, self.settings.vector_space
        if wanted is not None:
            versions = connection.answering.setdefault((wanted, names.signature), set())
        codec = Codec(
            spec, names, origin=origin, dimensions=connection.dimensions, versions=versions
        )
        if pinned is None:
            self._codec = codec
        return codec


def _batch_of_rows(rows: Rows, model: str, bridged: bool) -> EmbeddingBatch:
    """Of one reply."""
    vectors, errors = rows.vectors.copy(), {}
    if rows.reasons:
        errors = {row: rows.error(row) for row in rows.reasons}
        vectors[list(errors)] = np.nan
    return EmbeddingBatch(vectors, rows.version, errors, model, bridged)


def _batch_of_results(results: Sequence[Result[int]], model: str, dimension: int) -> EmbeddingBatch:
    """Of several replies, all by one version. `dimension`: where there is no vector."""
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
