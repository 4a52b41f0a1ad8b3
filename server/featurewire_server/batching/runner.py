"""Runs requests in batches, like TensorFlow Serving's batching session, in `Schedule`'s order.

There is one queue per version, signature and set of outputs. All queues share one pool of threads,
so that one batch can be decoded while another is computed. Without batching, each request is a
batch in the same schedule.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from featurewire_server.batching.batch import Batch
from featurewire_server.batching.config import BatchingConfig
from featurewire_server.batching.policy import POLICY
from featurewire_server.batching.queue import Queue
from featurewire_server.batching.schedule import Schedule
from featurewire_server.batching.task import Task, Terms
from featurewire_server.common.errors import deadline_exceeded, from_exception
from featurewire_server.common.metrics import Metrics
from featurewire_server.engines.engine import Engine, Patience
from featurewire_server.messages.predict import Run
from featurewire_server.messages.rows import common_rows, refused_rows

log = logging.getLogger(__name__)

Key = tuple[str, tuple[str, ...]]


class BatchScheduler:
    """The threads that run batches, shared by all models."""

    def __init__(self, threads: int, *, unbatched: int = 1) -> None:
        lock = threading.Lock()
        self.changed = threading.Condition(lock)
        """Notified if a batch may start. Its lock guards the schedule and the runners' queues."""
        self.ended = threading.Condition(lock)
        """Notified when a batch has ended."""
        self.schedule = Schedule(threads=threads, unbatched=unbatched)
        log.debug("scheduling by %s", POLICY)
        self._threads = [
            threading.Thread(target=self._work, name=f"batch-{number}", daemon=True)
            for number in range(threads + unbatched)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def running(self) -> int:
        """Number of running batches."""
        return self.schedule.running

    def _work(self) -> None:
        while True:
            batch = self._next()
            runner, computed = batch.queue.owner, 0
            try:
                computed = runner.process(batch)
            except Exception:  # the tasks know already; the thread must survive
                log.exception("a batch failed")
            finally:
                with self.changed:
                    self.schedule.finished(batch, time.monotonic(), computed=computed)
                    runner.running -= 1
                    self.ended.notify_all()
            del runner, batch  # else they keep an unloaded version alive during the wait

    def _next(self) -> Batch:
        """Wait until a batch may start, and return it."""
        with self.changed:
            while True:
                now = time.monotonic()
                batch = self.schedule.next(now)
                if batch is not None:
                    batch.queue.owner.took(batch)
                    if self.schedule.waiting:
                        self.changed.notify()  # a second batch may start, now or later
                    return batch
                wake_at = self.schedule.wake_at
                self.changed.wait(None if wake_at == math.inf else max(wake_at - now, 0.0))


class Runner:
    """Runs requests on one engine through its queues. The scheduler's lock guards the fields."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        config: BatchingConfig | None,
        scheduler: BatchScheduler,
        metrics: Metrics | None = None,
    ) -> None:
        """Without a `config`, requests are not batched."""
        self.signatures = engine.signatures
        self.queues: OrderedDict[Key, Queue] = OrderedDict()
        """The queues by signature and outputs, least recently used first."""
        self.running = 0
        self._name = name
        self._engine = engine
        self._config = config or BatchingConfig.unbatched()
        # With batching, rows of different requests share a batch, so they must be independent.
        self._independent = getattr(engine, "independent_rows", False)
        independent = self._config.merge or self._independent
        self._pads = getattr(engine, "pads", True)
        self._splits = independent and not self._config.pad_variable_length
        self._scheduler = scheduler
        self._metrics = metrics or Metrics()

    async def run(self, run: Run, terms: Terms) -> dict[str, np.ndarray]:
        """Run a request and return its outputs; see Engine.run. Raises ServingError."""
        key = _key(run.signature_name, run.outputs)
        rows = common_rows(run.inputs) if self._config.merge else max(run.examples, 1)
        if not rows:
            return await asyncio.to_thread(self._engine.run, key[0], run.inputs, key[1])
        task = Task(run.inputs, terms, rows=rows)
        with self._queued(key, task):
            try:
                async with asyncio.timeout_at(terms.deadline):
                    return await asyncio.wrap_future(task.outputs)
            except TimeoutError:
                raise deadline_exceeded() from None

    def require_time(self, signature_name: str, outputs: Sequence[str], terms: Terms) -> None:
        """Raise RESOURCE_EXHAUSTED if not even one row could be answered in time."""
        task = Task({}, terms, rows=1)
        with self._scheduler.changed:
            queue = self.queues.get(_key(signature_name, outputs))
            if queue is not None:
                self._scheduler.schedule.check(queue, task, task.enqueued)

    @contextmanager
    def _queued(self, key: Key, task: Task) -> Iterator[None]:
        """Add a task to its queue, and remove it if the block fails, as when its caller leaves.

        During the block, the rows of the task count as in flight, a metric for scaling a fleet.
        """
        scheduler = self._scheduler
        self._metrics.observe_rows_inflight(model=self._name, change=task.rows)
        try:
            with scheduler.changed:
                queue = self._queue(key)
                scheduler.schedule.add(queue, task, task.enqueued)
                scheduler.changed.notify()
                self._observe_queue()
            try:
                yield
            except BaseException:
                with scheduler.changed:
                    scheduler.schedule.remove(queue, task)
                    self._observe_queue()
                raise
        finally:
            self._metrics.observe_rows_inflight(model=self._name, change=-task.rows)

    def _queue(self, key: Key) -> Queue:
        queue = self.queues.get(key)
        if queue is None:
            queue = self.queues[key] = Queue(
                self._config,
                splits=self._splits,
                side_by_side=self._engine.side_by_side,
                pads=self._pads,
                owner=self,
                key=key,
            )
        self.queues.move_to_end(key)
        if len(self.queues) > POLICY.kept:
            idle = next((key for key, each in self.queues.items() if not len(each)), None)
            if idle is not None:
                del self.queues[idle]
        return queue

    def took(self, batch: Batch) -> None:
        """Record the start of a batch. The scheduler decrements `running` when the batch ends."""
        self.running += 1
        self._observe_queue()

    def _observe_queue(self) -> None:
        self._metrics.observe_queue(
            model=self._name, batches=sum(len(queue) for queue in self.queues.values())
        )

    def process(self, batch: Batch) -> int:
        """Run a batch, and give each task its outputs or the error.

        Returns the number of rows that the network computed.
        """
        signature_name, outputs = batch.queue.key
        if self._config.merge:
            started = time.monotonic()
            for piece in batch.pieces:
                self._metrics.observe_queuing(
                    model=self._name, seconds=started - piece.task.enqueued
                )
            self._metrics.observe_batch(
                model=self._name, size=batch.rows, padding=batch.size - batch.rows
            )
        try:
            values = self._engine.run(signature_name, batch.inputs(), outputs, _patience(batch))
            batch.deliver(values)
        except Exception as error:
            batch.fail(from_exception(error))
            return 0
        return batch.size - (refused_rows(values) if self._independent else 0)

    def close(self) -> None:
        """Remove all waiting tasks, wait until the running batches end, then free the engine."""
        with self._scheduler.changed:
            for queue in self.queues.values():
                self._scheduler.schedule.forget(queue)
            self.queues.clear()
            self._scheduler.ended.wait_for(lambda: self.running == 0)
        self._engine.close()


def _patience(batch: Batch) -> Patience:
    """A function that returns for how many seconds at least one caller of the batch will wait."""

    def seconds() -> float:
        now = time.monotonic()
        tasks = (piece.task for piece in batch.pieces)
        ends = [math.inf if t.deadline is None else t.deadline for t in tasks if t.alive(now)]
        return max(ends, default=now) - now

    return seconds


def _key(signature_name: str, outputs: Sequence[str]) -> Key:
    # Sorted, so that the same outputs in another order use the same queue.
    return signature_name, tuple(sorted(set(outputs)))
