"""Limits the request bytes that the process holds at a time."""

from __future__ import annotations

import threading

from featurewire_server.common import memory
from featurewire_server.common.errors import resource_exhausted
from featurewire_server.common.metrics import Metrics

MIB = 1 << 20
DEFAULT_LIMIT = 512 * MIB


def default_limit() -> int:
    """The default limit of bytes in flight: 512 MiB, or an eighth of the memory if less."""
    return min(DEFAULT_LIMIT, memory.available_bytes() // 8)


class Admission:
    """Admits requests as long as the sum of their encoded bytes stays within `limit`."""

    def __init__(
        self,
        limit: int,
        metrics: Metrics | None = None,
        *,
        what: str = "request bytes",
        source: str = "--max_inflight_bytes",
    ) -> None:
        """`what` the limit counts and the `source` of its value appear in the error message."""
        self.limit = limit
        self._what = what
        self._source = source
        self._metrics = metrics or Metrics()
        self._held = 0
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Number of bytes held now."""
        return self._held

    def hold(self) -> Hold:
        """A new, empty Hold for one call."""
        return Hold(self)

    def _change(self, size: int) -> None:
        with self._lock:
            if size > 0 and self._held + size > self.limit:
                raise resource_exhausted(
                    f"The server holds {self._held} {self._what}; {size} more would exceed their "
                    f"limit of {self.limit} ({self._source}): send less at once, or raise it"
                )
            self._held += size
            held = self._held
        self._metrics.observe_inflight(bytes_=held)


class Hold:
    """The bytes that one call holds: its request, then its answer until the answer is sent."""

    def __init__(self, admission: Admission) -> None:
        self.size = 0
        self._admission = admission

    def resize(self, size: int) -> None:
        """Change the number of bytes held to `size`. Raises RESOURCE_EXHAUSTED over the limit."""
        if size != self.size:
            self._admission._change(size - self.size)
            self.size = size
