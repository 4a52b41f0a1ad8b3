"""The images that gave no vector: each listed when it fails, counted by reason for the end."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from featurewire._cli.arguments import printable


class Failures:
    """Takes failures from any thread; `say` writes a line."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._lock = threading.Lock()
        self._reasons: Counter[str] = Counter()

    def add(self, path: str, reason: str, detail: str = "") -> None:
        """List one as `PATH: DETAIL`; a detail begins with the reason, or is only that."""
        with self._lock:
            self._reasons[reason] += 1
        self._say(printable(f"{path}: {detail or reason}"))

    @property
    def count(self) -> int:
        with self._lock:
            return self._reasons.total()

    def summary(self) -> str:
        """`3 failed (2 corrupt, 1 empty)`."""
        with self._lock:
            return f"{self._reasons.total()} failed ({counted(self._reasons)})"


def counted(counts: Counter[str]) -> str:
    """`2 corrupt, 1 empty`: the most frequent first."""
    return ", ".join(f"{number} {name}" for name, number in counts.most_common())
