"""Many images through Predict. Decides; the shells send.

Images come in by `open` and `fill`, are packed, sent as the window lets them, and leave in order by
`take`.
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
from featurewire._stream.outage import Outage
from featurewire._stream.packing import Order, Pack, Packing, Slot
from featurewire._stream.rerouting import Rerouting
from featurewire._stream.window import Window
from featurewire._wire.predict import PREDICT, Codec

__all__ = ["Stream", "StreamProgress", "can_split"]

BATCH_LIMIT = re.compile(r"larger than maximum input batch size (\d+)")
REJECTIONS = 16
"""If this many single images are refused and none is accepted, the images are not at fault."""


@dataclass(frozen=True, kw_only=True)
class StreamProgress:
    """How far a stream is, in images."""

    read: int
    """Taken from the source."""
    answered: int
    """Those with a result, whether it was handed out or waits for one before it."""
    errors: int
    """Images whose result is an error."""
    in_flight: int
    """Sent, and without a reply."""


class Stream:
    """A `Job` (see `_call`) that takes images (`open`, `fill`, `end`) and gives results (`take`).

    With a `deadline` it is one bounded call, retried as such. Without one it is patient: once the
    client has had a reply it rides out an outage for `StreamConfig.patience` seconds.
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
        self._order = Order()
        self._packing = Packing(config)
        self._window = Window(config)
        self._outage = Outage(self._policy.config, config.patience)
        self._active: dict[Call, Pack] = {}
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

    # The source's side.

    @property
    def per_request(self) -> int:
        return self._packing.per_request

    def wants(self, asked: int = 0) -> bool:
        """Whether to read another image, in addition to the `asked` ones."""
        if self._ended or self._error is not None or self._packing.front is not None:
            return False
        return len(self._order) + asked < (2 * self._window.limit + 2) * self.per_request

    def open(self, key: Any) -> Slot:
        """The place of the next image, which `fill` brings."""
        return self._order.open(key)

    def fill(self, slot: Slot, image: Buffer | ImageError, now: float) -> None:
        if isinstance(image, ImageError):
            self._fail_slot(slot, image)
        elif self._error is None:
            self._packing.add(slot, image, now)

    @property
    def progress(self) -> StreamProgress:
        return StreamProgress(
            read=self._order.opened,
            answered=self._answered,
            errors=self._errors,
            in_flight=sum(len(pack.images) for pack in self._active.values()),
        )

    def end(self, error: BaseException | None = None) -> None:
        """The source ended, or raised: then what it gave is delivered before the error."""
        self._ended = True
        self._source_error = error
        self._packing.close()

    # The consumer's side.

    def take(self) -> list[Result[Any]]:
        """The results that are next in order."""
        return self._order.take()

    @property
    def finished(self) -> bool:
        """Nothing more will happen, or not before `redirect`; results may be left to take."""
        if self.astray is not None:
            return not self._active
        ended = self._ended or self._error is not None
        return ended and not self._active and self._packing.front is None

    @property
    def error(self) -> BaseException | None:
        """What ended the stream, if it was an error: the server's, or the source's."""
        return self._error or self._source_error

    # The server's side: a Job.

    def due(self, now: float) -> list[Attempt]:
        self._packing.close_due(now)
        limit = self._window.limit
        attempts: list[Attempt] = []
        in_flight = 0
        for call in self._active:
            if call.in_flight:
                attempts += call.due(now)
                in_flight += 1
        if self._outage.holds(now):
            return attempts
        for call in self._active:
            if in_flight >= limit:
                return attempts
            if not call.in_flight and (retry := call.due(now)):
                attempts += retry
                in_flight += 1
        for call in [call for call in self._active if call.given_up]:
            if (unsettled := self._finish(call)) is not None:
                self._leave_open(unsettled.slots[0])
        if self.astray is not None:
            return attempts
        while len(self._active) < limit and (pack := self._packing.front) is not None:
            if self._active and self._bytes + pack.size > self._bytes_limit:
                break
            attempts += self._send(self._packing.pop(), now)
        return attempts

    def _send(self, pack: Pack, now: float) -> list[Attempt]:
        codec = self._rerouting.codec(pack)
        call = self._connection.call(
            PREDICT,
            codec.build(pack.images),
            hedged=not pack.alone,
            alone=pack.alone,
            decide=self._decide,
            deadline=math.inf if self._deadline is None else self._deadline,
            attempt_timeout=self._timeout,
            bulk=self._deadline is None,
        )
        self._active[call] = pack
        self._bytes += pack.size
        return call.due(now)

    def wake_at(self) -> float:
        times = [call.wake_at() for call in self._active if call.in_flight]
        if len(times) < self._window.limit:  # else a retry that is due waits for its turn
            retries = [call.wake_at() for call in self._active if not call.in_flight]
            times += map(self._outage.earliest, retries)
        if (linger := self._packing.due_at()) is not None:
            times.append(linger)
        return min(times, default=math.inf)

    def replied(self, attempt: Attempt, reply: bytes, now: float) -> None:
        attempt.call.replied(attempt, reply, now)
        pack = self._finish(attempt.call)
        if pack is None:
            return
        codec = pack.codec or self._rerouting.codec(pack)
        try:
            rows = codec.read(reply, len(pack.images))
        except ResponseError as error:
            self._fail(error, pack.first)
            return
        self._replied = True
        self.versions.add(rows.version)
        if self._outage.end():
            for other in self._active:
                other.hurry()
        if not codec.fits(rows.version):
            text = "versions with different vector spaces answered; send the images again"
            self._go_astray(pack, rows.version, VectorSpaceError(text))
            return
        waiting = self._packing.front is not None
        self._window.replied(
            latency=now - attempt.started,
            now=now,
            saturated=waiting or len(self._active) + 1 >= self._window.limit,
        )
        self._count(len(pack.images), len(rows.reasons))
        for row, slot in enumerate(pack.slots):
            if row in rows.reasons:
                slot.result = Failed(slot.key, rows.error(row))
            else:
                # A copy, so that one kept vector does not keep the whole reply.
                vector = rows.vectors[row].copy()
                model, bridged = self._connection.model, codec.names.bridged
                embedding = Embedding(vector, model, rows.version, bridged)
                slot.result = Embedded(slot.key, embedding)

    def failed(self, attempt: Attempt, error: FeaturewireError, now: float) -> None:
        attempt.call.failed(attempt, error, now)
        pack = self._finish(attempt.call)
        if pack is None:
            return
        assert attempt.call.error is not None
        if self._rerouting.is_astray(pack, attempt.call.error):
            self._go_astray(pack, 0, attempt.call.error)
        elif can_split(attempt.call.error):
            self._split(pack, attempt.call.error)
        else:
            self._fail(attempt.call.error, pack.first)

    # Requests that a version answered without vectors of the wanted space.

    @property
    def astray(self) -> int | None:
        """The version that gave such an answer; 0 if unknown, None without such an answer.

        Nothing is sent until `redirect`, or `lose`.
        """
        return self._rerouting.astray

    def _go_astray(self, pack: Pack, version: int, error: FeaturewireError) -> None:
        if self._rerouting.note(pack, version):
            self._packing.put_back([pack])
        else:
            self._fail(error, pack.first)

    def redirect(self, codec: Codec, elsewhere: Codec) -> None:
        """Go on with `codec`; requests that were answered in another space go with `elsewhere`."""
        self._rerouting.redirect(codec, elsewhere)

    def lose(self, error: FeaturewireError) -> None:
        """No version gives vectors of the wanted space."""
        self._rerouting.astray = None
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

    def _finish(self, call: Call) -> Pack | None:
        """The pack of a call that has just finished; None while it goes on or when it is gone."""
        if not call.finished or call not in self._active:
            return None
        pack = self._active.pop(call)
        self._bytes -= pack.size
        self._obsolete += call.obsolete()
        return pack

    def _fail(self, error: FeaturewireError, at: int) -> None:
        """End with this error, once all images before the place `at` have their results."""
        if self._error is not None and at >= self._cut:
            return
        self._error, self._cut = error, at
        for call, pack in list(self._active.items()):
            if pack.first >= at:
                call.abandon()
                self._finish(call)
        self._packing.cut(at)
        self._order.cut(at)

    def excuse(self, seconds: float) -> None:
        """Time in which the consumer held control; patience does not count it."""
        self._outage.excuse(seconds)

    def _decide(self, call: Call, error: FeaturewireError, now: float) -> float | None:
        """Seconds until a failed request may be sent again; None to give it up."""
        if isinstance(error, OverloadedError):
            self._window.overloaded(now)
        if not self._is_patient(error):
            return self._policy(call, error, now)
        delay = self._patient_delay(call, error, now)
        if delay is None:
            self._policy.explain(call, error, now)
        return delay

    def _patient_delay(self, call: Call, error: FeaturewireError, now: float) -> float | None:
        policy, outage = self._policy, self._outage
        if not outage.trouble(now):
            return None
        if policy.helps_elsewhere(error) and policy.has_other(call, now):
            return 0.0
        if isinstance(error, DeadlineExceededError):
            if outage.is_on or self._connection.channel.wait_for_ready:
                self._probe_later(now)
                return 0.0
            pack = self._active[call]
            pack.expired += 1
            if pack.expired >= policy.config.max_attempts:
                return None
            if policy.has_other(call, now):
                return 0.0
            self._window.overloaded(now)
        elif isinstance(error, ModelNotFoundError):
            if not outage.is_on:  # a server that has just started loads its models first
                return None
        elif not is_transient(error):
            return None
        if policy.helps_elsewhere(error):
            self._probe_later(now)
            return 0.0
        return wait_before_retry(policy.config, call.failures, error)

    def _is_patient(self, error: FeaturewireError) -> bool:
        """Keep trying a server that has answered the client before.

        A request without a reply in time goes again to any server: `timeout` bounds one attempt,
        and `max_attempts` the number of attempts.
        """
        if self._deadline is not None:
            return False
        if self._replied or self._outage.is_on or isinstance(error, DeadlineExceededError):
            return True
        return is_transient(error) and self._connection.answered

    def _probe_later(self, now: float) -> None:
        if not self._outage.is_on:
            self._window.unreachable()
        self._outage.probe_later(now)

    # Servers on which one image fails its whole request.

    def refused(self, error: FeaturewireError) -> None:
        """The first queued request was already sent, and the server refused it."""
        self._split(self._packing.pop(), error)

    def _split(self, pack: Pack, error: FeaturewireError) -> None:
        """Find the image that a refused request is refused for: halves of it go first again."""
        count = len(pack.images)
        limit = BATCH_LIMIT.search(error._text)
        if limit and 0 < int(limit[1]) < count:
            self._packing.per_request = min(self._packing.per_request, int(limit[1]))
            self._packing.put_back(pack.parts(self._packing.per_request))
        elif count > 1:
            self._packing.put_back(pack.parts(-(-count // 2)))
        elif error.code == "INVALID_ARGUMENT" and not pack.alone:
            # The server may have merged it with a bad image, so send it again alone.
            pack.alone = True
            self._packing.put_back([pack])
        else:
            self._reject(pack.slots[0], error)

    def _leave_open(self, slot: Slot) -> None:
        """Other calls of the client never paused: whose fault the refusal was is not known."""
        text = (
            "unknown: the server refused a request with this image, perhaps because of "
            "another image"
        )
        self._fail_slot(slot, ImageError(text, reason="unknown"))

    def _reject(self, slot: Slot, error: FeaturewireError) -> None:
        self._rejections += 1
        if not self._replied and self._rejections >= REJECTIONS:
            self._fail(error, slot.number)
            return
        reason = "too_large" if error.code == "RESOURCE_EXHAUSTED" else "rejected"
        text = f"{reason}: the server refused it: {error._problem}"
        refused = ImageError(text, reason=reason, advice=error._advice)
        refused.__cause__ = error
        self._fail_slot(slot, refused)

    def _fail_slot(self, slot: Slot, error: ImageError) -> None:
        self._count(1, 1)
        slot.result = Failed(slot.key, error)


def can_split(error: FeaturewireError) -> bool:
    """A request refused with it may do better in parts."""
    if not isinstance(error, InvalidRequestError):
        return False
    if error.code == "RESOURCE_EXHAUSTED":
        return True
    return error.code == "INVALID_ARGUMENT" and not is_systemic(error)
