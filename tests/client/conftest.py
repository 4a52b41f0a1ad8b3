"""One suite for both clients: `connect` makes a `Client`, or an `AsyncClient` that looks like
one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import featurewire

BOUND = 60.0  # seconds; time limit of every call here


class Blocking:
    """An `AsyncClient` with an event loop on another thread, and the methods of `Client`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self.client = featurewire.AsyncClient(*args, **kwargs)
        except BaseException:
            self._stop()
            raise
        self._closed = False

    def _wait(self, awaitable: Any) -> Any:
        async def bounded() -> Any:
            return await asyncio.wait_for(awaitable, BOUND)

        return asyncio.run_coroutine_threadsafe(bounded(), self._loop).result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(BOUND)
        self._loop.close()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.client, name)
        return lambda *args, **kwargs: self._wait(method(*args, **kwargs))

    def with_options(self, **options: Any) -> Blocking:
        view = Blocking.__new__(Blocking)
        vars(view).update(vars(self) | {"client": self.client.with_options(**options)})
        return view

    def stats(self) -> featurewire.Stats:
        return self.client.stats()

    def stream(self, images: Any, **kwargs: Any) -> Iterator[featurewire.Result]:
        return self._each(self.client.stream(images, **kwargs))

    def _each(self, results: Any) -> Iterator[featurewire.Result]:
        try:
            while True:
                try:
                    yield self._wait(results.__anext__())
                except StopAsyncIteration:
                    return
        finally:
            self._wait(results.aclose())

    def close(self) -> None:
        if not self._closed:
            self._wait(self.client.aclose())

    def end(self) -> None:
        self.close()
        self._closed = True
        self._stop()


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """A function like `Client(…)`, whose clients are closed after the test."""
    made: list[Any] = []

    def make(target: str, **kwargs: Any) -> Any:
        kwargs.setdefault("model", "tiny")
        kind = featurewire.Client if request.param == "sync" else Blocking
        client = kind(target, **kwargs)
        made.append(client)
        return client

    yield make
    for client in made:
        client.end() if isinstance(client, Blocking) else client.close()
