"""Many images through Predict: packing, the window, retries, order. Decides; the shells send."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from featurewire._call import Attempt, Call, RetryPolicy
from featurewire._config import RetryConfig, StreamConfig
from featurewire._embedding import Embedding, Result
from featurewire._errors import (
    DeadlineExceededError,
    FeaturewireError,
    ImageError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    ResponseError,
    is_systemic,
)
from featurewire._images import Buffer
from featurewire._reply import Rows
from featurewire._retry import backoff, is_transient
from featurewire._stats import Recorder
from featurewire._window import Window

__all__ = ["Predict", "Stream", "can_split"]

BATCH_LIMIT = re.compile(r"larger than maximum input batch size (\d+)")
REJECTIONS = 16
"""So many images refused one by one, and none accepted: it is not the images."""


@dataclass(frozen=True, kw_only=True)
class Predict:
    """What a stream needs to know of the client that it belongs to."""

    model: str
    build: Callable[[Sequence[Buffer]], bytes]
    read: Callable[[bytes, int], Rows]
    """From a reply and its number of images to checked rows; raises `ResponseError`."""
    call: Callable[..., Call]
    """Makes a Predict `Call` from a request, its `decide` and its times."""
    policy: RetryPolicy
    recorder: Recorder
    answered: Callable[[], bool] = lambda: False
    """The client has had a reply, of any kind."""
    waits_for_ready: bool = False
    """An attempt waits for the connection: a server that is gone shows as a deadline."""


@dataclass(eq=False)
class _Slot:
    """The place of one image in the order of results."""

    key: Any
    result: Result | None = None


@dataclass(eq=False)
class _Pack:
    """Images that travel together."""

    opened: float
    slots: list[_Slot] = field(default_factory=list)
    images: list[Buffer] = field(default_factory=list)
    size: int = 0
    expired: int = 0
    """Attempts that had no reply in time, from a server that was there."""

    def add(self, slot: _Slot, image: Buffer) -> None:
        self.slots.append(slot)
        self.images.append(image)
        self.size += len(image)


class Stream:
    """A `Job` (see `_call`) that also takes images (`add`, `end`) and gives results (`take`).

    With a `deadline` it is one bounded call, retried as such. Without one it is patient: once the
    client has had a reply it rides out an outage for `StreamConfig.patience` seconds.
    """

    def __init__(
        self,
        predict: Predict,
        config: StreamConfig,
        *,
        timeout: float | None,
        deadline: float | None = None,
    ) -> None:
        self._predict = predict
        self._config = config
        self._timeout = timeout
        self._deadline = deadline
        self._window = Window(config)
        self._per_request = config.images_per_request
        self._slots: deque[_Slot] = deque()
        self._pack: _Pack | None = None
        self._waiting: deque[_Pack] = deque()
        self._active: dict[Call, _Pack] = {}
        self._bytes = 0
        self._obsolete: list[Attempt] = []
        self._ended = False
        self._source_error: Exception | None = None
        self._error: FeaturewireError | None = None
        self._replied = False
        self._rejections = 0
        self._trouble_since: float | None = None
        self._outage = False
        self._probes = 0
        self._probe_at = -math.inf

    # The source's side.

    def wants(self) -> bool:
        """Another image may be read: at most one request's worth waits to be sent."""
        if self._ended or self._error is not None or self._waiting:
            return False
        return len(self._slots) < (2 * self._window.limit + 2) * self._per_request

    def add(self, key: Any, image: Buffer | ImageError, now: float) -> None:
        """The next image, or why it could not be read."""
        slot = _Slot(key)
        self._slots.append(slot)
        if isinstance(image, ImageError):
            self._fail_slot(slot, image)
            return
        pack = self._pack
        if pack is not None and pack.size + len(image) > self._config.bytes_per_request:
            self._close_pack()
            pack = None
        if pack is None:
            pack = self._pack = _Pack(opened=now)
        pack.add(slot, image)
        if len(pack.images) >= self._per_request or now - pack.opened > self._config.linger:
            self._close_pack()

    def end(self, error: Exception | None = None) -> None:
        """The source ended, or raised: then what it gave is delivered before the error."""
        self._ended = True
        self._source_error = error
        self._close_pack()

    def _close_pack(self) -> None:
        if self._pack is not None:
            self._waiting.append(self._pack)
            self._pack = None

    # The consumer's side.

    def take(self) -> list[Result]:
        """The results that are next in order."""
        ready = []
        while self._slots and (result := self._slots[0].result) is not None:
            ready.append(result)
            self._slots.popleft()
        return ready

    @property
    def finished(self) -> bool:
        """Nothing more will happen; results may be left to take."""
        if self._error is not None:
            return True
        return self._ended and not self._active and not self._waiting

    def raise_error(self) -> None:
        """Raise what ended the stream, if it was an error."""
        if self._error is not None:
            raise self._error
        if self._source_error is not None:
            raise self._source_error

    # The server's side: a Job.

    def due(self, now: float) -> list[Attempt]:
        if self._error is not None:
            return []
        if self._pack is not None and now - self._pack.opened > self._config.linger:
            self._close_pack()
        limit = self._window.limit
        attempts: list[Attempt] = []
        in_flight = 0
        for call in self._active:
            if call.in_flight:
                attempts += call.due(now)
                in_flight += 1
        if self._outage and now < self._probe_at:
            return attempts
        for call in self._active:
            if in_flight >= limit:
                return attempts
            if not call.in_flight and (retry := call.due(now)):
                attempts += retry
                in_flight += 1
        while self._waiting and len(self._active) < limit and self._fits(self._waiting[0]):
            attempts += self._send(self._waiting.popleft(), now)
        return attempts

    def _fits(self, pack: _Pack) -> bool:
        return not self._active or self._bytes + pack.size <= self._config.bytes_in_flight

    def _send(self, pack: _Pack, now: float) -> list[Attempt]:
        if len(pack.images) > self._per_request:  # packed before the server's limit was known
            for part in reversed(_parts(pack, self._per_request)):
                self._waiting.appendleft(part)
            pack = self._waiting.popleft()
        call = self._predict.call(
            self._predict.build(pack.images),
            decide=self._decide,
            deadline=math.inf if self._deadline is None else self._deadline,
            attempt_timeout=self._timeout,
        )
        self._active[call] = pack
        self._bytes += pack.size
        return call.due(now)

    def wake_at(self) -> float:
        if self._error is not None:
            return math.inf
        times = [call.wake_at() for call in self._active if call.in_flight]
        if len(times) < self._window.limit:  # else a retry that is due waits for its turn
            retries = [call.wake_at() for call in self._active if not call.in_flight]
            times += [max(time, self._probe_at) if self._outage else time for time in retries]
        if self._pack is not None:
            times.append(self._pack.opened + self._config.linger)
        return min(times, default=math.inf)

    def replied(self, attempt: Attempt, reply: bytes, now: float) -> None:
        call = attempt.call
        call.replied(attempt, reply, now)
        pack = self._finish(call)
        if pack is None:
            return
        try:
            rows = self._predict.read(reply, len(pack.images))
        except ResponseError as error:
            self._fail(error)
            return
        self._replied = True
        self._trouble_since = None
        if self._outage:
            self._outage, self._probes = False, 0
            for other in self._active:
                other.hurry()
        self._window.replied(
            images=len(pack.images),
            latency=now - attempt.started,
            now=now,
            saturated=bool(self._waiting) or len(self._active) + 1 >= self._window.limit,
        )
        self._predict.recorder.add(images=len(pack.images), image_errors=len(rows.reasons))
        for row, slot in enumerate(pack.slots):
            if row in rows.reasons:
                slot.result = Result(slot.key, error=rows.error(row))
            else:
                # A copy, so that one kept vector does not keep the whole reply.
                embedding = Embedding(rows.vectors[row].copy(), self._predict.model, rows.version)
                slot.result = Result(slot.key, embedding)

    def failed(self, attempt: Attempt, error: FeaturewireError, now: float) -> None:
        call = attempt.call
        call.failed(attempt, error, now)
        pack = self._finish(call)
        if pack is None:
            return
        assert call.error is not None
        if can_split(call.error):
            self._split(pack, call.error)
        else:
            self._fail(call.error)

    def obsolete(self) -> list[Attempt]:
        obsolete, self._obsolete = self._obsolete, []
        return obsolete

    def _finish(self, call: Call) -> _Pack | None:
        """The pack of a call that has just finished; None while it goes on or when it is gone."""
        if not call.finished or call not in self._active:
            return None
        pack = self._active.pop(call)
        self._bytes -= pack.size
        self._obsolete += call.obsolete()
        return pack

    def _fail(self, error: FeaturewireError) -> None:
        if self._error is None:
            self._error = error
        for call in self._active:
            call.abandon()
            self._obsolete += call.obsolete()
        self._active.clear()
        self._waiting.clear()

    def _decide(self, call: Call, error: FeaturewireError, now: float) -> float | None:
        """Seconds until a failed request may be sent again; None to give it up."""
        policy = self._predict.policy
        config = policy.config
        if isinstance(error, OverloadedError):
            self._window.overloaded(now)
        if not self._is_patient(error):
            return policy(call, error, now)
        if self._trouble_since is None:
            self._trouble_since = now
        if now - self._trouble_since > self._config.patience:
            return None
        if policy.helps_elsewhere(error) and policy.has_other(call, now):
            return 0.0
        if isinstance(error, DeadlineExceededError):
            if self._outage or self._predict.waits_for_ready:
                self._probe_later(config, now)
                return 0.0
            pack = self._active[call]
            pack.expired += 1
            if pack.expired >= config.max_attempts:
                return None
            self._window.overloaded(now)
        elif isinstance(error, ModelNotFoundError):
            if not self._outage:  # a server that has just started loads its models first
                return None
        elif not is_transient(error):
            return None
        if policy.helps_elsewhere(error):
            self._probe_later(config, now)
            return 0.0
        return backoff(config, call.failures)

    def _is_patient(self, error: FeaturewireError) -> bool:
        """What befalls a server that has worked is ridden out; what was always so is not."""
        if self._deadline is not None:
            return False
        if self._replied or self._outage:
            return True
        return is_transient(error) and self._predict.answered()

    def _probe_later(self, config: RetryConfig, now: float) -> None:
        """In an outage the whole stream waits, and one request at a time finds out its end."""
        if not self._outage:
            self._outage = True
            self._window.unreachable()
        elif now < self._probe_at:
            return  # sent before the outage was known
        self._probes += 1
        self._probe_at = now + backoff(config, self._probes)

    # Servers on which one image fails its whole request.

    def refused(self, error: FeaturewireError) -> None:
        """What waits first was sent already, and the server refused it."""
        self._split(self._waiting.popleft(), error)

    def _split(self, pack: _Pack, error: FeaturewireError) -> None:
        """Find the image that a refused request is refused for: halves of it go first again."""
        limit = BATCH_LIMIT.search(str(error))
        if limit and 0 < int(limit[1]) < len(pack.images):
            self._per_request = min(self._per_request, int(limit[1]))
            parts = _parts(pack, self._per_request)
        elif len(pack.images) > 1:
            parts = _parts(pack, -(-len(pack.images) // 2))
        else:
            self._reject(pack.slots[0], error)
            return
        self._waiting.extendleft(reversed(parts))

    def _reject(self, slot: _Slot, error: FeaturewireError) -> None:
        self._rejections += 1
        if not self._replied and self._rejections >= REJECTIONS:
            self._fail(error)
            return
        reason = "too_large" if error.code == "RESOURCE_EXHAUSTED" else "rejected"
        refused = ImageError(f"{reason}: the server refused it: {error}", reason=reason)
        refused.__cause__ = error
        self._fail_slot(slot, refused)

    def _fail_slot(self, slot: _Slot, error: ImageError) -> None:
        self._predict.recorder.add(images=1, image_errors=1)
        slot.result = Result(slot.key, error=error)


def can_split(error: FeaturewireError) -> bool:
    """A request refused with it may do better in parts."""
    if not isinstance(error, InvalidRequestError):
        return False
    if error.code == "RESOURCE_EXHAUSTED":
        return True
    return error.code == "INVALID_ARGUMENT" and not is_systemic(error)


def _parts(pack: _Pack, size: int) -> list[_Pack]:
    parts = []
    for start in range(0, len(pack.images), size):
        part = _Pack(opened=pack.opened)
        for slot, image in zip(
            pack.slots[start : start + size], pack.images[start : start + size], strict=True
        ):
            part.add(slot, image)
        parts.append(part)
    return parts
