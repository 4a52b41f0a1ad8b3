"""Loads a version directory into a runner: engine, batching and warm-up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from featurewire_server._tfs.session_bundle_config_pb2 import BatchingParameters
from featurewire_server.batching.config import BatchingConfig
from featurewire_server.batching.runner import BatchScheduler, Runner
from featurewire_server.common import memory
from featurewire_server.common.metrics import Metrics
from featurewire_server.common.text_files import read
from featurewire_server.engines.artifact import ArtifactEngine
from featurewire_server.engines.engine import EngineConfig
from featurewire_server.engines.load import load_engine
from featurewire_server.models.warmup import first_rows, replayed_by, warm_up

log = logging.getLogger(__name__)

BATCHING_FILE = "batching_params.pbtxt"


@dataclass(frozen=True, kw_only=True)
class Loader:
    """Loads a version; the manager calls it with model name, version and directory."""

    engine: EngineConfig
    batching: BatchingConfig | None = None
    """None: without batching."""
    per_model_batching: bool = False
    """Batch only versions with a batching_params.pbtxt in their directory, with its settings."""
    scheduler: BatchScheduler
    """Decides which request runs next."""
    warm_up: bool = True
    warm_up_iterations: int = 1
    metrics: Metrics = field(default_factory=Metrics)
    beside: Callable[[], bool] = lambda: False
    """Whether other versions may be answering calls, which loading should disturb less."""

    def __call__(self, name: str, version: int, path: Path) -> Runner:
        batching = self._batching_of(path)
        beside = self.beside()
        with _timed(
            partial(self.metrics.observe_load, model=name, version=version, path=str(path))
        ):
            engine = load_engine(path, self.engine, beside=beside)
        runner = Runner(name, engine, batching, self.scheduler, self.metrics)
        log.info(
            "%s version %d: %s engine in %s, %s",
            name,
            version,
            engine.name,
            engine.precision,
            f"batches of up to {batching.execution_size}" if batching else "no batching",
        )
        self.metrics.observe_engine(
            model=name, version=version, engine=engine.name, precision=engine.precision
        )
        memory.trim_heap()
        if self.warm_up:
            spare = beside and isinstance(engine, ArtifactEngine)
            run = first_rows(engine) if spare else replayed_by(runner)
            try:
                with _timed(partial(self.metrics.observe_warmup, path=str(path))):
                    warm_up(
                        engine.signatures,
                        run,
                        path,
                        iterations=self.warm_up_iterations,
                        name=f"{name} version {version}",
                    )
            except BaseException:
                runner.close()
                raise
            memory.trim_heap()  # the first run copies the graph to optimise it
        return runner

    def _batching_of(self, path: Path) -> BatchingConfig | None:
        if self.batching is None or not self.per_model_batching:
            return self.batching
        file = path / BATCHING_FILE
        if not file.is_file():
            return None
        return BatchingConfig.from_proto(read(file, BatchingParameters()))


@contextmanager
def _timed(report: Callable[..., None]) -> Iterator[None]:
    """Report whether the `with` block succeeded, and its seconds."""
    started, ok = time.monotonic(), False
    try:
        yield
        ok = True
    finally:
        report(ok=ok, seconds=time.monotonic() - started)
