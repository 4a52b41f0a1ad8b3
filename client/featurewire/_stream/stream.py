"""Sends any number of images through Predict. Decides only; the drivers do the I/O.

The prefetcher adds images with `open` and `fill`. The stream packs them into requests, sends as
many requests at a time as the window allows, and returns the results in order with `take`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from featurewire._config import StreamConfig
from featurewire._embedding import Embedded, Embedding, Failed, Result
from featurewire._errors import (
    DeadlineExceededError,
    FeaturewireError,
    ImageError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    ResponseError,
    VectorSpaceError,
    is_systemic,
    is_transient,
)
from featurewire._images import Buffer
from featurewire._rpc.call import Attempt, Call
from featurewire._rpc.connection import Connection
from featurewire._rpc.retry import wait_before_retry
from featurewire._stream.circuit_breaker import CircuitBreaker
from featurewire._stream.requests import Entry, PendingRequest, ReorderBuffer, RequestBuilder
from featurewire._stream.rerouting import Rerouting
from featurewire._stream.window import Window
from featurewire._wire.predict import PREDICT, Codec

BATCH_LIMIT = re.compile(r"larger than maximum input batch size (\d+)")
MAX_REJECTIONS = 16
"""If the server refuses this many single images and accepts none, the images are not at fault."""


@dataclass(frozen=True, kw_only=True)
class StreamProgress:
    """How far a stream is, in images."""

    read: int
    """Images taken from the source."""
    answered: int
    """Images that have a result, even if it still waits for the results before it."""
    errors: int
    """Images whose result is an error."""
    in_flight: int
    """Images that were sent and have no reply yet."""


class Stream:
    """A `Job` (see `_rpc.call`) that takes images (`open`, `fill`, `end`) and returns results.

    With a `deadline`, the stream is one call, and its requests are retried like single calls.
    Without a deadline, it retries for `StreamConfig.patience` seconds if the client has had a reply
    before.
    """

    def __init__(
        self,
        connection: Connection,
        codec: Codec,
        config: StreamConfig,
        *,
        timeout: float | None = None,
        deadline: float | None = None,
    ) -> None:
        self._connection = connection
        self._rerouting = Rerouting(codec)
        self._policy = connection.policy
        self._timeout = timeout
        self._deadline = deadline
        self._results = ReorderBuffer()
        self._builder = RequestBuilder(config)
        self._window = Window(config)
        self._breaker = CircuitBreaker(self._policy.config, config.patience)
        self._active: dict[Call, PendingRequest] = {}
        self._bytes = 0
        self._bytes_limit = config.bytes_in_flight
        self._obsolete: list[Attempt] = []
        self._ended = False
        self._source_error: BaseException | None = None
        self._error: FeaturewireError | None = None
        self._cut = 0
        self._replied = False
        self.versions: set[int] = set()
        """Versions that answered."""
        self._rejections = 0
        self._answered = self._errors = 0

    # Called by the prefetcher.

    @property
    def per_request(self) -> int:
        return self._builder.per_request

    def wants(self, asked: int = 0) -> bool:
        """Whether to read another image, in addition to the `asked` ones."""
        if self._ended or self._error is not None or self._builder.front is not None:
            return False
        return len(self._results) + asked < (2 * self._window.limit + 2) * self.per_request

    def open(self, key: Any) -> Entry:
        """Reserve the next position in the order of results; `fill` adds the image."""
        return self._results.open(key)

    def fill(self, entry: Entry, image: Buffer | ImageError, now: float) -> None:
        if isinstance(image, ImageError):
            self._fail_entry(entry, image)
        elif self._error is None:
            self._builder.add(entry, image, now)

    @property
    def progress(self) -> StreamProgress:
        return StreamProgress(
            read=self._results.opened,
            answered=self._answered,
            errors=self._errors,
            in_flight=sum(len(pending.images) for pending in self._active.values()),
        )

    def end(self, error: BaseException | None = None) -> None:
        """End the source. With an `error`, images already read are delivered before the error."""
        self._ended = True
        self._source_error = error
        self._builder.close()

    # Called for the consumer.

    def take(self) -> list[Result[Any]]:
        """Remove and return the results that are next in order."""
        return self._results.take()

    @property
    def finished(self) -> bool:
        """Whether all requests have ended, or wait for `redirect`. Results may be left to take."""
        if self.wrong_space_version is not None:
            return not self._active
        ended = self._ended or self._error is not None
        return ended and not self._active and self._builder.front is None

    @property
    def error(self) -> BaseException | None:
        """The server's or the source's error that ended the stream, if any."""
        return self._error or self._source_error

    # Called by the driver: the interface of a `Job`.

    def due(self, now: float) -> list[Attempt]:
        self._builder.close_due(now)
        limit = self._window.limit
        attempts: list[Attempt] = []
        in_flight = 0
        for call in self._active:
            if call.in_flight:
                attempts += call.due(now)
                in_flight += 1
        if self._breaker.blocks(now):
            return attempts
        for call in self._active:
            if in_flight >= limit:
                return attempts
            if not call.in_flight and (retry := call.due(now)):
                attempts += retry
                in_flight += 1
        for call in [call for call in self._active if call.not_isolated]:
            if (unsettled := self._finish(call)) is not None:
                self._leave_open(unsettled.entries[0])
        if self.wrong_space_version is not None:
            return attempts
        while len(self._active) < limit and (pending := self._builder.front) is not None:
            if self._active and self._bytes + pending.size > self._bytes_limit:
                break
            attempts += self._send(self._builder.pop(), now)
        return attempts

    def _send(self, pending: PendingRequest, now: float) -> list[Attempt]:
        codec = self._rerouting.codec(pending)
        call = self._connection.call(
            PREDICT,
            codec.build(pending.images),
            hedged=not pending.exclusive,
            exclusive=pending.exclusive,
            decide=self._decide,
            deadline=math.inf if self._deadline is None else self._deadline,
            attempt_timeout=self._timeout,
            bulk=self._deadline is None,
        )
        self._active[call] = pending
        self._bytes += pending.size
        return call.due(now)

    def wake_at(self) -> float:
        times = [call.wake_at() for call in self._active if call.in_flight]
        if len(times) < self._window.limit:  # otherwise due retries wait until a request ends
            retries = [call.wake_at() for call in self._active if not call.in_flight]
            times += map(self._breaker.not_before, retries)
        if (linger := self._builder.due_at()) is not None:
            times.append(linger)
        return min(times, default=math.inf)

    def replied(self, attempt: Attempt, reply: bytes, now: float) -> None:
        attempt.call.replied(attempt, reply, now)
        pending = self._finish(attempt.call)
        if pending is None:
            return
        codec = pending.codec or self._rerouting.codec(pending)
        try:
            rows = codec.read(reply, len(pending.images))
        except ResponseError as error:
            self._fail(error, pending.first)
            return
        self._replied = True
        self.versions.add(rows.version)
        if self._breaker.end():
            for other in self._active:
                other.cancel_backoff()
        if not codec.fits(rows.version):
            text = "versions with different vector spaces answered; send the images again"
            self._reroute(pending, rows.version, VectorSpaceError(text))
            return
        waiting = self._builder.front is not None
        self._window.replied(
            latency=now - attempt.started,
            now=now,
            saturated=waiting or len(self._active) + 1 >= self._window.limit,
        )
        self._count(len(pending.images), len(rows.reasons))
        for row, entry in enumerate(pending.entries):
            if row in rows.reasons:
                entry.result = Failed(entry.key, rows.error(row))
            else:
                # A copy, so that one kept vector does not keep the whole reply.
                vector = rows.vectors[row].copy()
                model, bridged = self._connection.model, codec.names.bridged
                embedding = Embedding(vector, model, rows.version, bridged)
                entry.result = Embedded(entry.key, embedding)

    def failed(self, attempt: Attempt, error: FeaturewireError, now: float) -> None:
        attempt.call.failed(attempt, error, now)
        pending = self._finish(attempt.call)
        if pending is None:
            return
        assert attempt.call.error is not None
        if self._rerouting.needs_reroute(pending, attempt.call.error):
            self._reroute(pending, 0, attempt.call.error)
        elif can_split(attempt.call.error):
            self._split(pending, attempt.call.error)
        else:
            self._fail(attempt.call.error, pending.first)

    # Requests that were answered in the wrong vector space.

    @property
    def wrong_space_version(self) -> int | None:
        """The version that answered in the wrong space; 0 if unknown, None without such an answer.

        The stream sends nothing until `redirect` or `fail_reroute` is called.
        """
        return self._rerouting.wrong_space_version

    def _reroute(self, pending: PendingRequest, version: int, error: FeaturewireError) -> None:
        if self._rerouting.note(pending, version):
            self._builder.put_back([pending])
        else:
            self._fail(error, pending.first)

    def redirect(self, codec: Codec, pinned_codec: Codec) -> None:
        """Continue with `codec`; requests that are sent again use `pinned_codec`."""
        self._rerouting.redirect(codec, pinned_codec)

    def fail_reroute(self, error: FeaturewireError) -> None:
        """End the stream, because no version gives vectors of the wanted space."""
        self._rerouting.wrong_space_version = None
        self._fail(error, self._rerouting.first)

    def _count(self, images: int, errors: int) -> None:
        self._answered += images
        self._errors += errors
        self._connection.count(images=images, image_errors=errors)

    def abandon(self) -> None:
        """End without an outcome."""
        for call in self._active:
            call.abandon()

    def obsolete(self) -> list[Attempt]:
        obsolete, self._obsolete = self._obsolete, []
        return obsolete

    def _finish(self, call: Call) -> PendingRequest | None:
        """Remove and return the request of a finished call; None if it is in flight or removed."""
        if not call.finished or call not in self._active:
            return None
        pending = self._active.pop(call)
        self._bytes -= pending.size
        self._obsolete += call.obsolete()
        return pending

    def _fail(self, error: FeaturewireError, at: int) -> None:
        """End with this error after all images before position `at` have their results."""
        if self._error is not None and at >= self._cut:
            return
        self._error, self._cut = error, at
        for call, pending in list(self._active.items()):
            if pending.first >= at:
                call.abandon()
                self._finish(call)
        self._builder.cut(at)
        self._results.cut(at)

    def add_paused_time(self, seconds: float) -> None:
        """Exclude time during which the consumer had control from `patience`."""
        self._breaker.add_paused_time(seconds)

    def _decide(self, call: Call, error: FeaturewireError, now: float) -> float | None:
        """Seconds until a failed request is sent again; None to give up."""
        if isinstance(error, OverloadedError):
            self._window.overloaded(now)
        if not self._is_patient(error):
            return self._policy(call, error, now)
        delay = self._patient_delay(call, error, now)
        if delay is None:
            self._policy.explain(call, error, now)
        return delay

    def _patient_delay(self, call: Call, error: FeaturewireError, now: float) -> float | None:
        policy, breaker = self._policy, self._breaker
        if not breaker.record_failure(now):
            return None
        if policy.helps_elsewhere(error) and policy.has_other(call, now):
            return 0.0
        if isinstance(error, DeadlineExceededError):
            if breaker.is_open or self._connection.channel.wait_for_ready:
                self._probe_later(now)
                return 0.0
            pending = self._active[call]
            pending.expired += 1
            if pending.expired >= policy.config.max_attempts:
                return None
            if policy.has_other(call, now):
                return 0.0
            self._window.overloaded(now)
        elif isinstance(error, ModelNotFoundError):
            if not breaker.is_open:  # a server that has just started loads its models first
                return None
        elif not is_transient(error):
            return None
        if policy.helps_elsewhere(error):
            self._probe_later(now)
            return 0.0
        return wait_before_retry(policy.config, call.failures, error)

    def _is_patient(self, error: FeaturewireError) -> bool:
        """Whether to keep retrying: yes if a server has answered this client before.

        A request that timed out is sent again to any server. `timeout` limits one attempt, and
        `max_attempts` the number of attempts.
        """
        if self._deadline is not None:
            return False
        if self._replied or self._breaker.is_open or isinstance(error, DeadlineExceededError):
            return True
        return is_transient(error) and self._connection.answered

    def _probe_later(self, now: float) -> None:
        if not self._breaker.is_open:
            self._window.unreachable()
        self._breaker.probe_later(now)

    # Servers on which one bad image fails its whole request.

    def refused(self, error: FeaturewireError) -> None:
        """Split the first queued request, which the server has already refused."""
        self._split(self._builder.pop(), error)

    def _split(self, pending: PendingRequest, error: FeaturewireError) -> None:
        """Bisect a refused request to find the image at fault. The halves are sent first."""
        count = len(pending.images)
        limit = BATCH_LIMIT.search(error._text)
        if limit and 0 < int(limit[1]) < count:
            self._builder.per_request = min(self._builder.per_request, int(limit[1]))
            self._builder.put_back(pending.parts(self._builder.per_request))
        elif count > 1:
            self._builder.put_back(pending.parts(-(-count // 2)))
        elif error.code == "INVALID_ARGUMENT" and not pending.exclusive:
            # The server may have merged it with a bad image, so send it again alone.
            pending.exclusive = True
            self._builder.put_back([pending])
        else:
            self._reject(pending.entries[0], error)

    def _leave_open(self, entry: Entry) -> None:
        """Fail an image that could not be isolated from other calls, so its fault is unknown."""
        text = (
            "unknown: the server refused a request with this image, perhaps because of "
            "another image"
        )
        self._fail_entry(entry, ImageError(text, reason="unknown"))

    def _reject(self, entry: Entry, error: FeaturewireError) -> None:
        self._rejections += 1
        if not self._replied and self._rejections >= MAX_REJECTIONS:
            self._fail(error, entry.number)
            return
        reason = "too_large" if error.code == "RESOURCE_EXHAUSTED" else "rejected"
        text = f"{reason}: the server refused it: {error._problem}"
        refused = ImageError(text, reason=reason, advice=error._advice)
        refused.__cause__ = error
        self._fail_entry(entry, refused)

    def _fail_entry(self, entry: Entry, error: ImageError) -> None:
        self._count(1, 1)
        entry.result = Failed(entry.key, error)


def can_split(error: FeaturewireError) -> bool:
    """Whether parts of a request may succeed that was refused with this error."""
    if not isinstance(error, InvalidRequestError):
        return False
    if error.code == "RESOURCE_EXHAUSTED":
        return True
    return error.code == "INVALID_ARGUMENT" and not is_systemic(error)
