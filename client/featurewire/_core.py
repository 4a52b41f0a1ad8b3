"""All of a client but its I/O: configuration, requests, replies, and the steps of each method.

A method with several steps is a generator that yields what it waits for, a `Job` or a number of
seconds, and returns the result; both shells run it the same way.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable
from typing import Any

import grpc

from featurewire import _channel
from featurewire._batch import batch_of_results, batch_of_rows, one_request
from featurewire._call import Attempt, Call, Decide, Flow, Job, RetryPolicy
from featurewire._config import ChannelConfig, RetryConfig, StreamConfig, TLSConfig
from featurewire._embedding import Embedding, EmbeddingBatch, Result
from featurewire._errors import (
    ConfigError,
    FeaturewireError,
    ImageError,
    ResponseError,
    ServerError,
    from_rpc_error,
    is_systemic,
)
from featurewire._images import Buffer
from featurewire._inquiry import Inquiry
from featurewire._layout import ReplyReader
from featurewire._memory import expect_large_blocks
from featurewire._reply import Rows
from featurewire._request import PREDICT, Names, RequestBuilder
from featurewire._retry import RetryBudget
from featurewire._rotation import Rotation
from featurewire._stats import Recorder, Stats
from featurewire._stream import Predict, Stream, can_split

__all__ = ["DEFAULT_TIMEOUT", "UNSET", "Core", "Timeout", "Unset"]

DEFAULT_TIMEOUT = 60.0

_COUNTERS = {"first": "requests", "retry": "retries", "hedge": "hedges"}


class Unset:
    """ "Not given", where None means "no limit"."""

    def __repr__(self) -> str:
        return "the client's"


UNSET = Unset()
Timeout = float | None | Unset


class Core:
    def __init__(
        self,
        target: str,
        *,
        model: str,
        version: int | None,
        label: str | None,
        timeout: float | None,
        retry: RetryConfig,
        tls: TLSConfig | None,
        channel: ChannelConfig,
        stream: StreamConfig,
        signature: str,
        input: str | None,
        output: str | None,
    ) -> None:
        self.servers = _channel.split_target(target)
        self.target = target
        self.model = _check_name("model", model)
        self.timeout = _check_timeout(timeout)
        _check_type("retry", retry, RetryConfig)
        _check_type("channel", channel, ChannelConfig)
        _check_type("stream", stream, StreamConfig)
        if tls is not None:
            _check_type("tls", tls, TLSConfig)
        if version is not None and label is not None:
            raise ConfigError("version and label: name one of them, not both")
        if version is not None and (not isinstance(version, int) or not 0 <= version < 1 << 63):
            raise ConfigError(f"version={version!r}: expected a whole number, such as 1")
        if label is not None and not isinstance(label, str):
            raise ConfigError(f"label={label!r}: expected a str, such as 'stable'")
        _channel.check_token(channel, tls, self.servers)
        self.tls = tls.loaded() if tls is not None else None
        self.channel = channel
        self.recorder = Recorder()
        self._stream_config = stream
        self._retry = retry
        self._version = version
        self.inquiry = Inquiry(
            target,
            model=model,
            version=version,
            label=label,
            signature=signature,
            input=input,
            output=output,
            new_call=self._unary_call,
        )
        self._rotation = Rotation(len(self.servers))
        self._budget = RetryBudget(retry)
        self._policy = RetryPolicy(retry, self._budget, self._rotation)
        self._read_reply = ReplyReader()
        self._kept: tuple[Names, RequestBuilder] | None = None
        self._dimensions: dict[int, int] = {}
        self._answered: set[int] = set()
        self._pid = os.getpid()
        expect_large_blocks()
        self.closed = False

    def check_usable(self) -> None:
        if self.closed:
            raise ConfigError("this client is closed; create a new one")
        self.check_process()

    def check_process(self) -> None:
        """Raise where waiting would be for ever: gRPC's threads do not survive a fork."""
        if self.forked:
            raise ConfigError(
                f"this client belongs to process {self._pid}, which forked: its connection does "
                "not work here; create the client in the process that uses it, and start workers "
                "with the 'spawn' or 'forkserver' method"
            )

    def stats(self) -> Stats:
        self.check_process()
        return self.recorder.stats()

    @property
    def forked(self) -> bool:
        return os.getpid() != self._pid

    def translate(self, exc: BaseException, server: int) -> FeaturewireError:
        """Whatever a failed attempt raised, as an error of ours."""
        name = self.servers[server]
        if isinstance(exc, FeaturewireError):
            return exc
        if self.closed:
            error: FeaturewireError = ConfigError("this client was closed while a call was open")
        elif isinstance(exc, grpc.RpcError):
            answered = server in self._answered
            error = from_rpc_error(exc, target=name, model=self.model, answered=answered)
            if is_systemic(error):
                self.inquiry.forget_names()
            return error
        else:
            error = ServerError(f"{name}, model {self.model!r}: {type(exc).__name__}: {exc}")
        error.__cause__ = exc
        return error

    # Books that both shells keep.

    def started(self, attempt: Attempt) -> None:
        self.recorder.started(_COUNTERS[attempt.kind], sent=len(attempt.call.request))

    def replied(self, job: Job, attempt: Attempt, reply: bytes, now: float) -> None:
        """`now`: when the reply came, not when somebody looked."""
        self._budget.succeeded()
        self._answered.add(attempt.server)
        self.recorder.replied(latency=now - attempt.started, received=len(reply))
        job.replied(attempt, reply, now)

    def failed(self, job: Job, attempt: Attempt, exc: BaseException) -> None:
        self.recorder.add(in_flight=-1)
        job.failed(attempt, self.translate(exc, attempt.server), time.monotonic())
        if attempt.call.finished and attempt.call.error is not None:
            self.recorder.add(failures=1)

    def canceled(self) -> None:
        self.recorder.add(in_flight=-1)

    # The steps of each method.

    def deadline(self, timeout: Timeout) -> float:
        seconds = self.timeout if isinstance(timeout, Unset) else _check_timeout(timeout)
        return math.inf if seconds is None else time.monotonic() + seconds

    def embed(self, image: Buffer | ImageError, deadline: float) -> Flow[Embedding]:
        batch = yield from self.embed_batch([image], deadline)
        return batch[0]

    def embed_batch(
        self, images: list[Buffer | ImageError], deadline: float
    ) -> Flow[EmbeddingBatch]:
        if not images:
            raise ValueError(
                "embed_batch got no images; leave the call out when there are none, or use "
                "stream(), which takes an empty iterable"
            )
        names = yield from self.inquiry.names(deadline)
        refusal = None
        if (loaded := one_request(images, self._stream_config)) is not None:
            call = self._predict_call(
                self._builder(names).build(loaded), decide=self._policy, deadline=deadline
            )
            yield call
            if call.error is None:
                assert call.reply is not None
                rows = self._read(call.reply, names, len(loaded))
                self.recorder.add(images=len(loaded), image_errors=len(rows.reasons))
                return batch_of_rows(rows, self.model)
            if not can_split(call.error):
                raise call.error
            refusal = call.error
        results = yield from self._results(images, names, deadline, refusal=refusal)
        versions = {each.embedding.version for each in results if each.embedding is not None}
        if len(versions) > 1:
            # The server changed its version between two requests: one batch, one version.
            newest = max(versions)
            results = yield from self._results(images, names, deadline, pinned=newest)
            versions = {newest}
        version = next(iter(versions)) if versions else max(self._dimensions, default=0)
        dimension = self._dimensions.get(version, 0)
        return batch_of_results(results, model=self.model, version=version, dimension=dimension)

    def _results(
        self,
        images: Iterable[Buffer | ImageError],
        names: Names,
        deadline: float,
        *,
        refusal: FeaturewireError | None = None,
        pinned: int | None = None,
    ) -> Flow[list[Result]]:
        """By a stream; `refusal`: what the server said to all images in one request."""
        stream = self.new_stream(names, deadline=deadline, pinned=pinned)
        now = time.monotonic()
        for position, image in enumerate(images):
            stream.add(position, image, now)
        stream.end()
        if refusal is not None:
            stream.refused(refusal)
        yield stream
        stream.raise_error()
        return stream.take()

    def _builder(self, names: Names, pinned: int | None = None) -> RequestBuilder:
        if pinned is not None:
            return RequestBuilder(self.inquiry.spec(names.signature, pinned=pinned), names)
        if self._kept is None or self._kept[0] is not names:
            self._kept = names, RequestBuilder(self.inquiry.spec(names.signature), names)
        return self._kept[1]

    def new_stream(
        self,
        names: Names,
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        pinned: int | None = None,
    ) -> Stream:
        predict = Predict(
            model=self.model,
            build=self._builder(names, pinned).build,
            read=lambda reply, count: self._read(reply, names, count),
            call=self._predict_call,
            policy=self._policy,
            recorder=self.recorder,
            answered=lambda: bool(self._answered),
            waits_for_ready=self.channel.wait_for_ready,
        )
        return Stream(predict, self._stream_config, timeout=timeout, deadline=deadline)

    def _read(self, reply: bytes, names: Names, count: int) -> Rows:
        try:
            rows = self._read_reply(reply, names=names, count=count)
            dimension = rows.vectors.shape[1]
            if names.dimension not in (None, dimension) and rows.version in (0, names.version):
                raise ResponseError(
                    f"output {names.output!r} has vectors of dimension {dimension}, its signature "
                    f"says {names.dimension}"
                )
            known = self._dimensions.setdefault(rows.version, dimension)
            if known != dimension:
                raise ResponseError(
                    f"version {rows.version} answered with dimension {dimension}, "
                    f"before that with {known}"
                )
            if self._version is not None and rows.version not in (0, self._version):
                raise ResponseError(
                    f"version {self._version} was asked for and {rows.version} answered"
                )
        except ResponseError as exc:
            raise ResponseError(f"{self.target}, model {self.model!r}: {exc}") from exc
        return rows

    def _unary_call(self, method: str, request: bytes, *, deadline: float, once: bool) -> Call:
        decide: Decide = (lambda *_: None) if once else self._policy
        return Call(method, request, rotation=self._rotation, decide=decide, deadline=deadline)

    def _predict_call(self, request: bytes, **times: Any) -> Call:
        return Call(
            PREDICT,
            request,
            rotation=self._rotation,
            hedge_after=self._retry.hedge_after,
            may_hedge=self._policy.may_hedge,
            **times,
        )


def _check_name(kind: str, name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{kind}={name!r}: expected the {kind}'s name on the server")
    return name


def _check_timeout(timeout: Any) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise ConfigError(f"timeout={timeout!r}: expected seconds > 0, or None for no limit")
    return float(timeout)


def _check_type(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise ConfigError(f"{name}={value!r}: expected a {kind.__name__}")
