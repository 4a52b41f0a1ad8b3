"""A bounded number of places, of which no caller can take all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from .errors import resource_exhausted


class Places:
    """A caller may take a place while it holds fewer than are free: half of all, if it is alone.

    This is the dynamic threshold of shared buffers (Choudhury and Hahne, 1998): of N callers who
    take what they can get, each has 1 / (N + 1) in the end, and as much is free for the next.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: Counter[Hashable] = Counter()
        self._count = 0

    @property
    def taken(self) -> int:
        return self._count

    def take(self, caller: Hashable) -> None:
        """Take a place. Raises RESOURCE_EXHAUSTED."""
        if self._count >= self._most:
            raise resource_exhausted(f"{self._most} calls of this kind are waiting already")
        mine, free = self._held[caller], self._most - self._count
        if mine >= free:
            raise resource_exhausted(
                f"{mine} calls of this kind wait for this host already, and the "
                f"{free} places that are free are for others"
            )
        self._held[caller] += 1
        self._count += 1

    def leave(self, caller: Hashable) -> None:
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]
        self._count -= 1
