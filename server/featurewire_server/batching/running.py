"""What runs, and how long it goes on. No threads, no clock, no engine."""

from __future__ import annotations

from .task import Batch


class Running:
    """Batches that share the machine.

    Each is charged with the time that it has the machine for itself: engines compute batches side
    by side, each with its part of the machine, or one after the other. Either way all have ended
    when what is left of each has passed.
    """

    def __init__(self) -> None:
        self._batches: dict[Batch, None] = {}
        self._charged_at = 0.0

    def __len__(self) -> int:
        return len(self._batches)

    def count(self, *, merge: bool) -> int:
        """Batches with batching, or without."""
        return sum(batch.queue.config.merge == merge for batch in self._batches)

    def start(self, batch: Batch, now: float) -> None:
        self._charge(now)
        self._batches[batch] = None

    def end(self, batch: Batch, now: float) -> None:
        """`batch.spent` then says what it took by itself."""
        self._charge(now)
        del self._batches[batch]

    def left(self, now: float) -> float:
        """Seconds until all that runs has ended, as far as it is known by now."""
        self._charge(now)
        expected = {batch: batch.queue.rates.seconds(batch.size) for batch in self._batches}
        return sum(max((expected[batch] or 0.0) - batch.spent, 0.0) for batch in expected)

    def _charge(self, now: float) -> None:
        computing = self._computing()
        for batch in computing:
            batch.spent += (now - self._charged_at) / len(computing)
        self._charged_at = now

    def _computing(self) -> list[Batch]:
        """Of those that compute one after the other, the others decode or wait."""
        first = next((batch for batch in self._batches if not batch.queue.side_by_side), None)
        return [batch for batch in self._batches if batch is first or batch.queue.side_by_side]
