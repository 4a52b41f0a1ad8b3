"""State that all calls of a client share: servers, retry budget, metadata and counters."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import grpc

from featurewire._config import ChannelConfig, Metadata, Settings, checked_token
from featurewire._errors import (
    ConfigError,
    FeaturewireError,
    ServerError,
)
from featurewire._rpc.call import Attempt, Call, Job
from featurewire._rpc.channel import check_token, proxy_variable
from featurewire._rpc.exclusive import ExclusiveSlot
from featurewire._rpc.failures import from_rpc_error
from featurewire._rpc.retry import RetryBudget, RetryPolicy
from featurewire._rpc.rotation import Rotation
from featurewire._rpc.stats import Latencies, Stats
from featurewire._rpc.target import split_target

CLASS = "featurewire-class"
"""Metadata key. The embedded server runs calls without the value `bulk` first; TensorFlow Serving
ignores it."""

MAX_BLOCK_BYTES = 16 << 20
"""Twice the largest default request. glibc may then keep up to 32 MiB of freed memory."""

log = logging.getLogger("featurewire")

_COUNTERS = {"first": "requests", "retry": "retries", "hedge": "hedges"}


@dataclass
class ConnectionState:
    """Whether a client may still be used, and where."""

    closed: bool = False
    loop: object = None
    """The event loop that the client belongs to, if any."""
    pid: int | None = None
    """The process that made the first call; None before that."""


class Connection:
    """State that all calls of a client share. Thread-safe, but not usable after a fork."""

    def __init__(self, settings: Settings) -> None:
        self.servers = split_target(settings.target)
        self.target = settings.target
        self.model = settings.model
        self.channel = settings.channel
        self._metadata = settings.channel.metadata_pairs()
        check_token(settings.channel, settings.tls, self.servers)
        self._has_tls = settings.tls is not None
        self.state = ConnectionState()
        self._hedge_after = settings.retry.hedge_after
        self._budget = RetryBudget(settings.retry)
        self.rotation = Rotation(self.servers)
        self.policy = RetryPolicy(settings.retry, self._budget, self.rotation)
        self._answered: set[int] = set()
        self._lock = threading.Lock()
        self._counts = {name: 0 for name in Stats.__dataclass_fields__ if name != "latency"}
        self._latencies = Latencies()
        counts = self._counts
        self._slot = ExclusiveSlot(lambda: counts["in_flight"])
        _expect_large_blocks()

    def check_usable(self) -> None:
        if self.state.closed:
            raise ConfigError("this client is closed; create a new one")
        self.check_process()

    def check_process(self) -> None:
        """Raise in a forked child: gRPC's threads do not survive a fork, and a call would hang."""
        if self.forked:
            raise ConfigError(
                f"this client was used in process {self.state.pid}, which then forked: its "
                "connection does not work in the child; use it only in the workers, or create it "
                "there: in gunicorn's post_fork, uWSGI's postfork, Celery's worker_process_init or "
                "a pool's initializer, or start workers with the 'spawn' or 'forkserver' method"
            )

    def claim(self) -> None:
        """Tie the client to this process with its first call. Until then, a fork does no harm."""
        self.check_usable()
        if self.state.pid is None:
            self.state.pid = os.getpid()

    @property
    def forked(self) -> bool:
        return self.state.pid not in (None, os.getpid())

    @property
    def answered(self) -> bool:
        """Whether a server has ever replied."""
        return bool(self._answered)

    def call(self, method: str, request: bytes, *, hedged: bool = False, **options: Any) -> Call:
        """A call to these servers. For the options see `Call`."""
        options["slot"] = self._slot
        if hedged and self._hedge_after is not None:
            options |= {"hedge_after": self._hedge_after, "may_hedge": self._budget.spend}
        return Call(method, request, rotation=self.rotation, **options)

    def view(self, metadata: Metadata) -> Connection:
        """The same connection with more metadata, which replaces values with the same key."""
        pairs = ChannelConfig(metadata=metadata).metadata_pairs()
        keys = {key for key, _ in pairs}
        view = copy.copy(self)
        view._metadata = [pair for pair in self._metadata if pair[0] not in keys] + pairs
        return view

    # Called by both drivers, to count attempts and report outcomes.

    def metadata(self, attempt: Attempt) -> list[tuple[str, str | bytes]]:
        """The metadata of one attempt; calls the token's function again."""
        token = self.channel.token
        pairs = self._metadata
        if attempt.call.bulk and all(key != CLASS for key, _ in pairs):
            pairs = [*pairs, (CLASS, "bulk")]
        if token is None:
            return pairs
        if callable(token):
            try:
                token = token()
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
                raise ConfigError(
                    f"the function failed: {why}", argument="token", config="ChannelConfig"
                ) from error
            checked_token(token, "the function's token")
        return [*pairs, ("authorization", f"Bearer {token}")]

    def started(self, attempt: Attempt) -> None:
        with self._lock:
            self._counts[_COUNTERS[attempt.kind]] += 1
            self._counts["in_flight"] += 1
            self._counts["bytes_sent"] += len(attempt.call.request)
        if log.isEnabledFor(logging.DEBUG):
            method = attempt.call.method.rpartition("/")[2]
            size, server = len(attempt.call.request), self.servers[attempt.server]
            log.debug("%s: %s attempt of %s, %d bytes", server, attempt.kind, method, size)

    def replied(self, job: Job, attempt: Attempt, reply: bytes, now: float) -> None:
        """`now`: the time at which the reply arrived, not at which it was collected."""
        self._budget.succeeded()
        self._answered.add(attempt.server)
        with self._lock:
            self._counts["in_flight"] -= 1
            self._counts["bytes_received"] += len(reply)
            self._latencies.add(now - attempt.started)
        job.replied(attempt, reply, now)

    def failed(self, job: Job, attempt: Attempt, exc: BaseException) -> None:
        self.count(in_flight=-1)
        error = self._translate(exc, attempt)
        job.failed(attempt, error, time.monotonic())
        if log.isEnabledFor(logging.DEBUG):
            gone = attempt.call.finished
            log.debug("%s: %s; %s", type(error).__name__, error, "gave up" if gone else "retries")
        if attempt.call.finished and attempt.call.error is not None:
            self.count(failures=1)

    def canceled(self) -> None:
        self.count(in_flight=-1)

    def count(self, **counts: int) -> None:
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count

    def stats(self) -> Stats:
        self.check_process()
        with self._lock:
            return Stats(**self._counts, latency=self._latencies.percentiles())

    def _translate(self, exc: BaseException, attempt: Attempt) -> FeaturewireError:
        """The error of this library for an exception that a failed attempt raised."""
        server, name = attempt.server, self.servers[attempt.server]
        if isinstance(exc, FeaturewireError):
            return exc
        if self.state.closed:
            error: FeaturewireError = ConfigError("this client was closed while a call was open")
        elif isinstance(exc, grpc.RpcError):
            return from_rpc_error(
                exc,
                target=name,
                model=self.model,
                answered=server in self._answered,
                tls=self._has_tls,
                proxy=proxy_variable(name, self.channel),
                timeout=attempt.timeout,
            )
        else:
            error = ServerError(f"{name}, model {self.model!r}: {type(exc).__name__}: {exc}")
        error.__cause__ = exc
        return error


def _expect_large_blocks() -> None:
    """Make glibc keep large freed blocks, which saves two thirds of the time of large requests.

    By default glibc maps new pages for each large block and unmaps them when the block is freed, so
    every request of a megabyte causes hundreds of page faults (measured: 245 instead of 90 us per
    image of 100 KB). Once it has freed a block, it keeps blocks of up to that size: mallopt(3),
    M_MMAP_THRESHOLD. So this function frees one large block. Its pages are never touched, so that
    costs microseconds. Other allocators ignore it.
    """
    if sys.platform == "linux":
        with contextlib.suppress(MemoryError):
            bytes(MAX_BLOCK_BYTES)
