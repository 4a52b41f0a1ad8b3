"""Load for tests and benchmarks: clients in endless loops, and an observer of the served
versions."""

from __future__ import annotations

import bisect
import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from featurewire import Client, FeaturewireError
from featurewire_rollout.fleet.fleet import Fleet
from tests.support.threads import Background


@dataclass(frozen=True)
class Answer:
    """One vector of a caller. Times are `time.monotonic`."""

    image: int
    """Index of its image."""
    version: int
    sent: float
    received: float
    vector: np.ndarray | None
    """None if it was not kept."""


class Callers(Background):
    """Threads that request vectors until the end: single images by label, and streams.

    Every call that fails is in `failures`.
    """

    def __init__(
        self,
        target: str,
        *,
        model: str,
        images: Sequence[bytes],
        labels: Sequence[str | None] = ("stable", "stable", None),
        streams: int = 1,
        keep_every: int = 1,
        pause: float = 0.0,
        **options: Any,
    ) -> None:
        """`labels`: one caller of single images per label; None means the newest version.
        `streams`: number of streams of `stable`. `keep_every`: keep one of this many vectors.
        `pause`: seconds between two images of a caller. `options`: of `Client`."""
        self.answers: list[Answer] = []
        self.failures: list[str] = []
        self._images = images
        self._keep_every = keep_every
        self._pause = pause
        self._came = threading.Condition()
        options |= {"model": model}
        runs = [(self._call, label) for label in labels] + [(self._stream, "stable")] * streams
        super().__init__(
            *(partial(self._run, run, target, options | {"label": label}) for run, label in runs)
        )

    def _run(self, run: Any, target: str, options: Mapping[str, Any]) -> None:
        with Client(target, **options) as client:
            while not self._stop.is_set():
                try:
                    run(client)
                except FeaturewireError as error:
                    who = options["label"] or "no label"
                    self.failures.append(f"{who}: {type(error).__name__}: {error}")
                    self._stop.wait(0.1)

    def _call(self, client: Client) -> None:
        for image in itertools.cycle(range(len(self._images))):
            if self._stop.is_set():
                return
            sent = time.monotonic()
            made = client.embed(self._images[image])
            self._add(image, made.version, sent, made.vector)
            self._stop.wait(self._pause)

    def _stream(self, client: Client) -> None:
        for result in client.stream(self._keyed()):
            image, sent = result.key
            if result.error is not None:
                self.failures.append(f"stream: {result.error}")
            else:
                self._add(image, result.embedding.version, sent, result.embedding.vector)

    def _keyed(self) -> Iterator[tuple[tuple[int, float], bytes]]:
        for image in itertools.cycle(range(len(self._images))):
            if self._stop.is_set():
                return
            yield (image, time.monotonic()), self._images[image]
            self._stop.wait(self._pause)

    def _add(self, image: int, version: int, sent: float, vector: np.ndarray) -> None:
        with self._came:
            kept = len(self.answers) % self._keep_every == 0
            made = Answer(image, version, sent, time.monotonic(), vector if kept else None)
            self.answers.append(made)
            self._came.notify_all()

    def wait(self, count: int, *, version: int | None = None, timeout: float = 60.0) -> None:
        """Wait for `count` more answers, of `version` if it is given."""
        with self._came:
            start = len(self.answers)

            def came() -> bool:
                new = self.answers[start:]
                return sum(version in (None, each.version) for each in new) >= count

            if not self._came.wait_for(came, timeout):
                raise AssertionError(f"no {count} answers within {timeout:g} s: {self.failures}")


class Onlooker(Background):
    """Polls all replicas for their AVAILABLE versions and the version that is `stable`."""

    def __init__(self, servers: Sequence[str], *, model: str, interval: float = 0.05) -> None:
        self._fleet = Fleet(servers, model=model)
        self._interval = interval
        super().__init__(self._run)
        self._times: list[float] = []
        self._seen: list[tuple[float, frozenset[int], tuple[int | None, ...]]] = []

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            view = self._fleet.read_state(labels=("stable",))
            available = frozenset().union(*(each.available for each in view.reached))
            stable = tuple(each.labels.get("stable") for each in view.replicas)
            self._seen.append((began, available, stable))
            self._times.append(time.monotonic())
            self._stop.wait(self._interval)

    def not_available(self, answers: Sequence[Answer]) -> list[Answer]:
        """Answers of a version that was not AVAILABLE in any poll between request and reply.

        The last poll before the request and the first one after the reply also count.
        """
        wrong = []
        for answer in answers:
            first = max(bisect.bisect_left(self._times, answer.sent) - 1, 0)
            last = bisect.bisect_right(self._times, answer.received) + 1
            looks = self._seen[first : last + 1]
            if not any(answer.version in available for _, available, _ in looks):
                wrong.append(answer)
        return wrong

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._fleet.close()
