"""The asyncio half of a job's I/O: sends its attempts and brings it their outcomes."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from featurewire._call import Attempt, Job
from featurewire._connection import Connection

__all__ = ["Driver"]

_Sent = asyncio.Task[tuple[bytes, float]]
"""Brings the reply, and when it came."""


class Driver:
    """Sends a job's attempts and brings it their outcomes."""

    def __init__(self, channels: list[grpc.aio.Channel], connection: Connection, job: Job) -> None:
        self._channels = channels
        self._connection = connection
        self._job = job
        self._open: dict[_Sent, Attempt] = {}
        self._events: deque[Callable[[], None]] = deque()
        self._loop = asyncio.get_running_loop()
        self._woken = self._loop.create_future()

    def deliver(self, event: Callable[[], None]) -> None:
        """Have something called in the event loop, by `wait` or `collect`. From any thread."""
        self._events.append(event)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is interested
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if not self._woken.done():
            self._woken.set_result(None)

    def start_due(self) -> bool:
        """Send what is to be sent now; whether that was anything."""
        attempts = self._job.due(time.monotonic())
        for attempt in attempts:
            self._connection.check_usable()
            metadata = self._connection.metadata(attempt)
            task = asyncio.ensure_future(self._send(attempt, metadata))
            self._open[task] = attempt
            self._connection.started(attempt)
        return bool(attempts)

    async def _send(
        self, attempt: Attempt, metadata: list[tuple[str, str | bytes]]
    ) -> tuple[bytes, float]:
        send = self._channels[attempt.server].unary_unary(attempt.method)
        reply: bytes = await send(
            attempt.request,
            timeout=attempt.timeout,
            metadata=grpc.aio.Metadata(*metadata),
            wait_for_ready=self._connection.channel.wait_for_ready or None,
        )
        return reply, time.monotonic()

    async def wait(
        self, wake_at: float = math.inf, reading: asyncio.Future[None] | None = None
    ) -> None:
        """Wait for an outcome or for `reading`, or until the job (or the caller: `wake_at`) is to
        be asked again."""
        if self._job.finished:
            return
        self._connection.check_process()
        left = min(self._job.wake_at(), wake_at) - time.monotonic()
        waits: list[asyncio.Future[Any]] = [*self._open, self._woken]
        if reading is not None:
            waits.append(reading)
        timeout = None if math.isinf(left) else max(left, 0.0)
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        self.collect()

    def collect(self) -> None:
        """Bring the outcomes that are there, without waiting."""
        for task in [task for task in self._open if task.done()]:
            self._bring(task)
        if self._woken.done():
            self._woken = self._loop.create_future()
        while self._events:
            self._events.popleft()()

    def _bring(self, task: _Sent) -> None:
        attempt = self._open.pop(task, None)
        if attempt is None:
            return
        try:
            reply, now = task.result()
        except (Exception, asyncio.CancelledError) as exc:
            self._connection.failed(self._job, attempt, exc)
        else:
            self._connection.replied(self._job, attempt, reply, now)
        obsolete = self._job.obsolete()
        for other in [task for task, attempt in self._open.items() if attempt in obsolete]:
            self._cancel(other)

    def _cancel(self, task: _Sent) -> None:
        if self._open.pop(task, None) is not None and not self._connection.forked:
            self._connection.canceled()
            if not task.cancel() and not task.cancelled():
                task.exception()  # seen: asyncio would report it as forgotten

    def close(self) -> None:
        """Cancel what is open, and end the job."""
        self._job.abandon()
        for task in list(self._open):
            self._cancel(task)
