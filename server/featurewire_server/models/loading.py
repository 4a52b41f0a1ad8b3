"""From a version directory to a runner: engine, batching, warm-up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .._tfs.session_bundle_config_pb2 import BatchingParameters
from ..batching.config import BatchingConfig
from ..batching.runner import BatchingRunner, BatchScheduler
from ..common import memory
from ..common.cancellation import Cancellation
from ..common.errors import cancelled as cancelled_error
from ..common.errors import deadline_exceeded
from ..common.telemetry import Metrics, NullMetrics
from ..common.text_files import read
from ..engines.chunks import ChunkedEngine
from ..engines.engine import Engine, EngineConfig
from ..engines.load import load_engine
from .servable import Runner
from .warmup import warm_up

log = logging.getLogger(__name__)

T = TypeVar("T")

BATCHING_FILE = "batching_params.pbtxt"
MAX_PAUSE = 1.0  # seconds


class DirectRunner:
    """Runs each request by itself, in the caller's thread: where there is no scheduler."""

    def __init__(self, engine: Engine) -> None:
        self.signatures = engine.signatures
        self._engine = engine

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        *,
        deadline: float | None = None,
        cancelled: Cancellation | None = None,
    ) -> dict[str, np.ndarray]:
        if deadline is not None and deadline <= time.monotonic():
            raise deadline_exceeded()
        if cancelled is not None and cancelled.is_set():
            raise cancelled_error()
        return self._engine.run(signature_name, inputs, outputs)

    async def run_async(self, *arguments: Any, **options: Any) -> dict[str, np.ndarray]:
        return await asyncio.to_thread(self.run, *arguments, **options)

    def require_time(self, *_: Any, **__: Any) -> None:
        """Nothing waits for anything here."""

    def close(self) -> None:
        self._engine.close()


class FirstRows(DirectRunner):
    """Warms an engine whose rows are independent while other versions answer: one row of each
    request, in this thread, because those that run batches are for callers, and with pauses.

    The first run of a signature optimises its graph, which takes seconds. What is left for the
    first batch of each size is a fifth of a second, too little to compute a large batch for.
    """

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        *,
        deadline: float | None = None,
        cancelled: Cancellation | None = None,
    ) -> dict[str, np.ndarray]:
        started = time.monotonic()
        first = {name: array[:1] for name, array in inputs.items()}
        found = super().run(signature_name, first, outputs, deadline=deadline, cancelled=cancelled)
        time.sleep(min(time.monotonic() - started, MAX_PAUSE))  # half of the time is for others
        return found


@dataclass(frozen=True, kw_only=True)
class Loader:
    """Loads versions; called by the manager with (model name, version, directory)."""

    engine: EngineConfig
    batching: BatchingConfig | None = None
    """None: no batching."""
    per_model_batching: bool = False
    """Only versions with a batching_params.pbtxt of their own are batched, as that says."""
    scheduler: BatchScheduler | None = None
    """What decides which request runs next; given when `batching` is. None: nobody."""
    warm_up: bool = True
    warm_up_iterations: int = 1
    metrics: Metrics = field(default_factory=NullMetrics)
    beside: Callable[[], bool] = lambda: False
    """Whether other versions may be answering: then loading spares them."""

    def __call__(self, name: str, version: int, path: Path) -> Runner:
        batching = self._batching_of(path)
        beside = self.beside()
        engine = self._timed(
            lambda: load_engine(path, self.engine, beside=beside),
            lambda ok, seconds: self.metrics.observe_load(
                model=name, version=version, path=str(path), ok=ok, seconds=seconds
            ),
        )
        runner: Runner = DirectRunner(engine)
        if self.scheduler is not None:
            runner = BatchingRunner(name, engine, batching, self.scheduler, self.metrics)
        log.info(
            "%s version %d: %s engine, %s",
            name,
            version,
            engine.name,
            f"batches of up to {batching.execution_size}" if batching else "no batching",
        )
        memory.give_back()
        if self.warm_up:
            spare = beside and isinstance(engine, ChunkedEngine)
            try:
                self._warm_up(FirstRows(engine) if spare else runner, name, version, path)
            except BaseException:
                runner.close()
                raise
            memory.give_back()  # the first run optimises the graph, in several copies
        return runner

    def _batching_of(self, path: Path) -> BatchingConfig | None:
        if self.batching is None or not self.per_model_batching:
            return self.batching
        file = path / BATCHING_FILE
        if not file.is_file():
            return None
        return BatchingConfig.from_proto(read(file, BatchingParameters()))

    def _warm_up(self, runner: Runner, name: str, version: int, path: Path) -> None:
        started = time.monotonic()
        count = self._timed(
            lambda: warm_up(
                runner,
                path,
                iterations=self.warm_up_iterations,
                name=f"{name} version {version}",
            ),
            lambda ok, seconds: self.metrics.observe_warmup(
                model=name, path=str(path), ok=ok, seconds=seconds
            ),
        )
        if count:
            seconds = time.monotonic() - started
            log.info("%s version %d: %d warm-up records, %.1f s", name, version, count, seconds)

    @staticmethod
    def _timed(work: Callable[[], T], report: Callable[[bool, float], None]) -> T:
        started = time.monotonic()
        ok = False
        try:
            result = work()
            ok = True
            return result
        finally:
            report(ok, time.monotonic() - started)
