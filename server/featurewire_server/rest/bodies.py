"""Bounds what the bodies of HTTP requests take of the server's memory limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..admission import Admission
from ..errors import resource_exhausted


class Bodies:
    """Admits bodies while they take no more than half of what `admission` may hold.

    HTTP clients choose how slowly a body comes, and its bytes are held meanwhile: the other half is
    out of their reach, for gRPC and for parsing the bodies that are there. For one thread only.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._held = 0

    @property
    def limit(self) -> int:
        """Bytes that all bodies may take together, so also the largest that one may have."""
        return self._admission.limit // 2

    @contextmanager
    def admit(self, size: int) -> Iterator[None]:
        """Hold `size` bytes for the body of the `with`, or raise RESOURCE_EXHAUSTED at once."""
        if self._held + size > self.limit:
            raise resource_exhausted(
                f"The server holds {self._held} bytes of REST requests; {size} more would exceed "
                f"their limit of {self.limit} (half of --max_inflight_bytes)"
            )
        with self._admission.admit(size):
            self._held += size
            try:
                yield
            finally:
                self._held -= size
