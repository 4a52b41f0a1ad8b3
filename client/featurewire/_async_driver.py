"""The asyncio half of a job's I/O: sends its attempts and brings it their outcomes."""

from __future__ import annotations

import asyncio
import math
import time
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

    def start_due(self) -> None:
        for attempt in self._job.due(time.monotonic()):
            self._connection.check_usable()
            metadata = self._connection.metadata(attempt)
            task = asyncio.ensure_future(self._send(attempt, metadata))
            self._open[task] = attempt
            self._connection.started(attempt)

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

    async def wait(self, reading: asyncio.Future[Any] | None = None) -> None:
        """Wait for an outcome or for `reading`, or until the job wants to be asked again."""
        if self._job.finished:
            return
        self._connection.check_process()
        left = self._job.wake_at() - time.monotonic()
        waits: list[asyncio.Future[Any]] = [*self._open]
        if reading is not None:
            waits.append(reading)
        if waits:
            timeout = None if math.isinf(left) else max(left, 0.0)
            await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(max(left, 0.0))
        self.collect()

    def collect(self) -> None:
        """Bring the outcomes that are there, without waiting."""
        for task in [task for task in self._open if task.done()]:
            self._bring(task)

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

    async def __aenter__(self) -> Driver:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in list(self._open):
            self._cancel(task)
