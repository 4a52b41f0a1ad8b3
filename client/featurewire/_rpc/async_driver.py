"""Sends a job's attempts and reports their outcomes to it, in an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc.aio

from featurewire._rpc.call import Attempt, Job
from featurewire._rpc.connection import Connection
from featurewire._rpc.driver import AnyDriver, Method


class Driver(AnyDriver):
    _outcomes = (Exception, asyncio.CancelledError)

    def __init__(self, method: Method, connection: Connection, job: Job) -> None:
        super().__init__(method, connection, job)
        self._events: deque[Callable[[], None]] = deque()
        self._loop = asyncio.get_running_loop()
        self._woken = self._loop.create_future()

    def deliver(self, event: Callable[[], None]) -> None:
        self._events.append(event)
        with contextlib.suppress(RuntimeError):  # the loop is closed, so no task waits
            self._loop.call_soon_threadsafe(self.wake)

    def wake(self, *_: object) -> None:
        """End `wait`. Call it only in the loop's thread."""
        if not self._woken.done():
            self._woken.set_result(None)

    def _start(self, attempt: Attempt) -> asyncio.Task[bytes]:
        task = asyncio.ensure_future(self._send(attempt, *self._sender(attempt)))
        task.add_done_callback(partial(self._done, attempt))
        return task

    @staticmethod
    async def _send(attempt: Attempt, send: Any, options: dict[str, Any]) -> bytes:
        options["metadata"] = grpc.aio.Metadata(*options["metadata"])
        reply: bytes = await send(attempt.call.request, **options)
        return reply

    def _done(self, attempt: Attempt, task: asyncio.Task[bytes]) -> None:
        if not task.cancelled():
            task.exception()  # mark it as retrieved, or asyncio logs a warning
        self._events.append(partial(self._bring, attempt, time.monotonic()))
        self.wake()

    def collect(self) -> None:
        while self._events:
            self._events.popleft()()

    async def wait(self, wake_at: float = math.inf) -> None:
        """Wait for an outcome, at most until the job's `wake_at()` or the caller's `wake_at`."""
        if self._job.finished:
            return
        await asyncio.wait([self._woken], timeout=self._seconds(wake_at))
        if self._woken.done():
            self._woken = self._loop.create_future()
        self.collect()
