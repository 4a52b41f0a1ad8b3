"""Runs functions on threads until the end of a block."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

JOIN_SECONDS = 120.0


class Background:
    """Context manager that runs each function on a thread, until `_stop` is set at the end."""

    def __init__(self, *runs: Callable[[], object]) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=run) for run in runs]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(JOIN_SECONDS)
