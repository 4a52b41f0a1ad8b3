"""Bounds the request bytes that the process holds at once."""

from __future__ import annotations

import threading

from featurewire_server.common import memory
from featurewire_server.common.errors import resource_exhausted
from featurewire_server.common.metrics import Metrics

MIB = 1 << 20
DEFAULT_LIMIT = 512 * MIB


def default_limit() -> int:
    """In-flight bytes when no flag says: 512 MiB, less on a machine of less than 4 GiB."""
    return min(DEFAULT_LIMIT, memory.available_bytes() // 8)


class Admission:
    """Admits requests while their encoded bytes together stay within `limit`."""

    def __init__(
        self,
        limit: int,
        metrics: Metrics | None = None,
        *,
        what: str = "request bytes",
        source: str = "--max_inflight_bytes",
    ) -> None:
        """`what` and `source` of the limit: for the error message."""
        self.limit = limit
        self._what = what
        self._source = source
        self._metrics = metrics or Metrics()
        self._held = 0
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Bytes held now."""
        return self._held

    def hold(self) -> Hold:
        """What one call will hold; nothing yet."""
        return Hold(self)

    def _change(self, size: int) -> None:
        with self._lock:
            if size > 0 and self._held + size > self.limit:
                raise resource_exhausted(
                    f"The server holds {self._held} {self._what}; {size} more would exceed their "
                    f"limit of {self.limit} ({self._source})"
                )
            self._held += size
            held = self._held
        self._metrics.observe_inflight(bytes_=held)


class Hold:
    """Bytes that one call holds: its request, then its answer until that has been sent."""

    def __init__(self, admission: Admission) -> None:
        self.size = 0
        self._admission = admission

    def resize(self, size: int) -> None:
        """Hold `size` bytes instead; more than the limit allows raises RESOURCE_EXHAUSTED."""
        if size != self.size:
            self._admission._change(size - self.size)
            self.size = size
