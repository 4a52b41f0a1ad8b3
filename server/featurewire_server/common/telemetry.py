"""What the server reports of itself while it works; `metrics.py` turns it into Prometheus text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import grpc


class Metrics(Protocol):
    """Receives observations from any thread; must be quick and must not raise."""

    def observe_request(
        self, *, model: str, api: str, entrypoint: str, code: grpc.StatusCode, seconds: float
    ) -> None:
        """A request ended. `api`: `Predict`, `Classify`, …; `entrypoint`: `GRPC` or `REST`."""

    def observe_runtime(self, *, model: str, api: str, seconds: float) -> None:
        """The engine ran a request (without batching) for `seconds`."""

    def observe_examples(self, *, model: str, count: int) -> None:
        """A request brought `count` examples: its size along dimension 0."""

    def observe_load(
        self, *, model: str, version: int, path: str, ok: bool, seconds: float
    ) -> None:
        """An attempt to load a version ended (warm-up not included)."""

    def observe_warmup(self, *, model: str, path: str, ok: bool, seconds: float) -> None:
        """The warm-up records of a version were replayed."""

    def observe_state(self, *, model: str, version: int, state: str) -> None:
        """A version changed its state: `START`, `LOADING`, `AVAILABLE`, `UNLOADING` or `END`."""

    def observe_labels(self, *, labels: Mapping[str, Mapping[str, int]]) -> None:
        """The labels in force: of each model, and the version that each points to."""

    def observe_queuing(self, *, model: str, seconds: float) -> None:
        """A task waited this long between its queue and its batch."""

    def observe_batch(self, *, model: str, size: int, padding: int) -> None:
        """A batch of `size` rows, and `padding` rows more, went to the engine."""

    def observe_queue(self, *, model: str, batches: int) -> None:
        """So many batches of a model are enqueued now."""

    def observe_rows_inflight(self, *, model: str, change: int) -> None:
        """So many more rows (images) of a model wait for a batch or run; fewer, if negative."""

    def observe_inflight(self, *, bytes_: int) -> None:
        """So many request bytes are held now."""


class NullMetrics:
    """Observes nothing: where no monitoring is configured."""

    def observe_request(self, **_: object) -> None: ...
    def observe_runtime(self, **_: object) -> None: ...
    def observe_examples(self, **_: object) -> None: ...
    def observe_load(self, **_: object) -> None: ...
    def observe_warmup(self, **_: object) -> None: ...
    def observe_state(self, **_: object) -> None: ...
    def observe_labels(self, **_: object) -> None: ...
    def observe_queuing(self, **_: object) -> None: ...
    def observe_batch(self, **_: object) -> None: ...
    def observe_queue(self, **_: object) -> None: ...
    def observe_rows_inflight(self, **_: object) -> None: ...
    def observe_inflight(self, **_: object) -> None: ...
