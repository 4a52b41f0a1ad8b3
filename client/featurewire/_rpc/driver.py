"""Sends a job's attempts and reports their outcomes to it. `Driver` is the blocking version."""

from __future__ import annotations

import math
import queue
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc

from featurewire._rpc.call import Attempt, Job
from featurewire._rpc.connection import Connection

Method = Callable[[int, str], Any]
"""gRPC's callable for a method of the server with that index."""


class AnyDriver(ABC):
    """The part that the blocking and the asyncio driver share: everything except waiting."""

    _outcomes: tuple[type[BaseException], ...] = (Exception,)
    """Exceptions that a future may raise."""

    def __init__(self, method: Method, connection: Connection, job: Job) -> None:
        self._method = method
        self._connection = connection
        self._job = job
        self._open: dict[Attempt, Any] = {}
        """Futures of the attempts in flight."""

    @abstractmethod
    def deliver(self, event: Callable[[], None]) -> None:
        """Queue a function for `wait` or `collect` to call. Thread-safe."""

    @abstractmethod
    def collect(self) -> None:
        """Run the queued events without waiting."""

    @abstractmethod
    def _start(self, attempt: Attempt) -> Any:
        """Send an attempt and return its future."""

    def start_due(self) -> bool:
        """Send the attempts that are due now. Returns whether there were any."""
        attempts = self._job.due(time.monotonic())
        for attempt in attempts:
            self._open[attempt] = self._start(attempt)
            self._connection.started(attempt)
        return bool(attempts)

    def _sender(self, attempt: Attempt) -> tuple[Any, dict[str, Any]]:
        self._connection.claim()
        return self._method(attempt.server, attempt.call.method), {
            "timeout": attempt.timeout,
            "metadata": self._connection.metadata(attempt),
            "wait_for_ready": self._connection.channel.wait_for_ready or None,
        }

    def _bring(self, attempt: Attempt, now: float) -> None:
        """Report an outcome that arrived at `now` to the job."""
        future = self._open.pop(attempt, None)
        if future is None:
            return
        try:
            reply = future.result()
        except self._outcomes as error:
            self._connection.failed(self._job, attempt, error)
        else:
            self._connection.replied(self._job, attempt, reply, now)
        for other in self._job.obsolete():
            self._cancel(other)

    def _cancel(self, attempt: Attempt) -> None:
        future = self._open.pop(attempt, None)
        if future is not None and not self._connection.forked:
            self._connection.canceled()
            future.cancel()

    def _seconds(self, wake_at: float) -> float | None:
        """Seconds until the job's `wake_at()` or the caller's `wake_at`; None: no limit."""
        self._connection.check_process()
        left = min(self._job.wake_at(), wake_at) - time.monotonic()
        return None if math.isinf(left) else max(left, 0.0)

    def close(self) -> None:
        """Cancel the attempts in flight, and end the job."""
        self._job.abandon()
        for attempt in list(self._open):
            self._cancel(attempt)


class Driver(AnyDriver):
    def __init__(self, method: Method, connection: Connection, job: Job) -> None:
        super().__init__(method, connection, job)
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def deliver(self, event: Callable[[], None]) -> None:
        self._events.put(event)

    def run(self) -> None:
        """Run a job to its end."""
        while not self._job.finished:
            attempts = self._job.due(time.monotonic())
            if len(attempts) == 1 and not self._open and math.isinf(self._job.wake_at()):
                self._call(attempts[0])
                continue
            for attempt in attempts:
                self._open[attempt] = self._start(attempt)
                self._connection.started(attempt)
            self.wait()

    def _call(self, attempt: Attempt) -> None:
        """Send the job's only attempt and block until its outcome.

        For a single future gRPC would start a thread, which costs more than the rest of a small
        call.
        """
        send, options = self._sender(attempt)
        self._connection.started(attempt)
        try:
            reply = send(attempt.call.request, **options)
        except Exception as error:
            self._connection.failed(self._job, attempt, error)
        except BaseException:  # an interrupt
            self._connection.canceled()
            raise
        else:
            self._connection.replied(self._job, attempt, reply, time.monotonic())

    def _start(self, attempt: Attempt) -> grpc.Future:
        send, options = self._sender(attempt)
        future = send.future(attempt.call.request, **options)
        future.add_done_callback(
            lambda _: self.deliver(partial(self._bring, attempt, time.monotonic()))
        )
        return future

    def collect(self) -> None:
        while not self._events.empty():
            self._events.get()()

    def wait(self, wake_at: float = math.inf) -> None:
        """Wait for an outcome, at most until the job's `wake_at()` or the caller's `wake_at`."""
        if self._job.finished:
            return
        try:
            event = self._events.get(timeout=self._seconds(wake_at))
        except queue.Empty:
            return
        event()
        self.collect()
