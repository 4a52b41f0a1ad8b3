"""Merges concurrent requests into batches, as TensorFlow Serving's batching session does.

One queue for each version, signature and set of outputs; one pool of threads for all of
them, so that decoding one batch can overlap computing another.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence

import numpy as np

from .batch_queue import Batch, Queue, Task
from .batching_config import BatchingConfig
from .cancellation import Cancellation
from .engine import Engine
from .errors import ServingError, failed_precondition, from_exception, invalid_argument
from .telemetry import Metrics, NullMetrics

log = logging.getLogger(__name__)

Key = tuple[str, tuple[str, ...]]


class BatchScheduler:
    """The threads that run batches, shared by every model."""

    def __init__(self, threads: int) -> None:
        self.changed = threading.Condition()
        self.running = 0
        """Batches that run now."""
        self._runners: list[BatchingRunner] = []
        self._threads = [
            threading.Thread(target=self._work, name=f"batch-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def register(self, runner: BatchingRunner) -> None:
        with self.changed:
            self._runners.append(runner)

    def unregister(self, runner: BatchingRunner) -> None:
        with self.changed:
            self._runners.remove(runner)

    def _work(self) -> None:
        while True:
            runner, key, batch = self._next()
            try:
                runner.process(key, batch)
            except Exception:  # `process` reports to its tasks; a thread must outlive the rest
                log.exception("a batch failed")
            finally:
                with self.changed:
                    runner.running -= 1
                    self.running -= 1
                    self.changed.notify_all()
            del runner, batch  # not to keep an unloaded version alive while waiting

    def _next(self) -> tuple[BatchingRunner, Key, Batch]:
        """Wait for the batch that has been due for longest."""
        with self.changed:
            while True:
                due = [
                    (when, runner, key)
                    for runner in self._runners
                    for key, queue in runner.queues.items()
                    if (when := queue.due()) is not None
                ]
                first = min(due, key=lambda entry: entry[0], default=None)
                now = time.monotonic()
                if first is None:
                    self.changed.wait()
                elif first[0] > now:
                    self.changed.wait(first[0] - now)
                else:
                    _, runner, key = first
                    batch = runner.take(key)
                    if batch is not None:
                        return runner, key, batch


class BatchingRunner:
    """An engine behind batch queues; its fields are guarded by the scheduler's condition."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        config: BatchingConfig,
        scheduler: BatchScheduler,
        metrics: Metrics | None = None,
    ) -> None:
        self.signatures = engine.signatures
        self.queues: dict[Key, Queue] = {}
        self.running = 0
        self._name = name
        self._engine = engine
        self._config = config
        self._scheduler = scheduler
        self._metrics = metrics or NullMetrics()
        scheduler.register(self)

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        *,
        deadline: float | None = None,
        cancelled: Cancellation | None = None,
    ) -> dict[str, np.ndarray]:
        if not _rows(inputs):
            return self._engine.run(signature_name, inputs, outputs)
        task = Task(inputs, deadline=deadline, cancellation=cancelled)
        key = (signature_name, tuple(outputs))
        with self._scheduler.changed:
            queue = self.queues.get(key) or Queue(self._config)
            queue.add(task)
            self.queues[key] = queue
            self._scheduler.changed.notify_all()
            self._observe_queue()
        return task.result()

    def take(self, key: Key) -> Batch | None:
        """The first batch of a queue; the caller counts down `running` when it has run."""
        queue = self.queues[key]
        batch = queue.take(busy=self._scheduler.running > 0)
        if not queue:
            del self.queues[key]  # a queue a set of outputs: callers must not make them pile up
        if batch is not None:
            self.running += 1
            self._scheduler.running += 1
        self._observe_queue()
        return batch

    def _observe_queue(self) -> None:
        self._metrics.observe_queue(
            model=self._name, batches=sum(len(queue) for queue in self.queues.values())
        )

    def process(self, key: Key, batch: Batch) -> None:
        """Run a batch and tell every task of it how that went."""
        signature_name, outputs = key
        started = time.monotonic()
        padded = self._config.padded(batch.rows)
        for piece in batch.pieces:
            self._metrics.observe_queuing(model=self._name, seconds=started - piece.task.enqueued)
        self._metrics.observe_batch(model=self._name, size=batch.rows, padding=padded - batch.rows)
        try:
            merged = merge([piece.inputs() for piece in batch.pieces], padded)
            values = self._engine.run(signature_name, merged, outputs)
            check_outputs(values, padded)
        except Exception as failure:
            error = from_exception(failure)
            for piece in batch.pieces:
                piece.task.fail(ServingError(error.code, error.message))
            return
        at = 0
        for piece in batch.pieces:
            part = {name: array[at : at + piece.rows] for name, array in values.items()}
            piece.task.deliver(piece.start, part, piece.rows)
            at += piece.rows

    def close(self) -> None:
        """Wait for the batch that runs for callers who have left, then free the engine."""
        with self._scheduler.changed:
            self.queues.clear()
            self._scheduler.changed.wait_for(lambda: self.running == 0)
        self._scheduler.unregister(self)
        self._engine.close()


def _rows(inputs: Mapping[str, np.ndarray]) -> int:
    """Dimension 0 of all inputs; raises INVALID_ARGUMENT when they cannot be batched."""
    if not inputs:
        return 0
    if any(array.ndim == 0 for array in inputs.values()):
        raise invalid_argument("Batching Run() input tensors must have at least one dimension.")
    sizes = {array.shape[0] for array in inputs.values()}
    if len(sizes) > 1:
        raise invalid_argument(
            f"Batching Run() input tensors must have equal 0th-dimension size; got {sorted(sizes)}."
        )
    return sizes.pop()


def merge(parts: Sequence[Mapping[str, np.ndarray]], rows: int) -> dict[str, np.ndarray]:
    """The inputs of all parts one after another, then the first row again up to `rows`.

    Where parts differ beyond dimension 0 they are padded at the end to the largest.
    """
    merged = {}
    for name in parts[0]:
        arrays = _same_shape([part[name] for part in parts])
        have = sum(len(array) for array in arrays)
        if rows > have:
            arrays = [*arrays, np.repeat(arrays[0][:1], rows - have, axis=0)]
        merged[name] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return merged


def _same_shape(arrays: list[np.ndarray]) -> list[np.ndarray]:
    if len({array.shape[1:] for array in arrays}) == 1:
        return arrays
    largest = np.max([array.shape[1:] for array in arrays], axis=0)
    padded = []
    for array in arrays:
        fill = b"" if array.dtype == object else 0
        whole = np.full((len(array), *largest), fill, dtype=array.dtype)
        whole[tuple(slice(size) for size in array.shape)] = array
        padded.append(whole)
    return padded


def check_outputs(values: Mapping[str, np.ndarray], rows: int) -> None:
    """Raise FAILED_PRECONDITION unless every output has a row for every input row."""
    for name, array in values.items():
        if array.ndim == 0 or array.shape[0] != rows:
            raise failed_precondition(
                f"Batched output tensor's 0th dimension does not equal the sum of the 0th "
                f"dimension sizes of the input tensors: {name} has the shape "
                f"{list(array.shape)}, the batch {rows} rows"
            )
