"""The running batches, and the machine time charged to each of them."""

from __future__ import annotations

from featurewire_server.batching.batch import Batch
from featurewire_server.batching.queue import Queue


class Running:
    """The running batches, which share the machine.

    An engine computes batches either side by side, with equal shares of the machine, or one after
    the other. Each batch is charged for its share of the machine's time. So the sum of the
    remaining times is the time until all batches have ended.
    """

    def __init__(self) -> None:
        self._batches: dict[Batch, None] = {}
        self._charged_at = 0.0

    def __len__(self) -> int:
        return len(self._batches)

    def count(self, *, merge: bool) -> int:
        """Number of running batches whose queue has batching (`merge`) or not."""
        return sum(batch.queue.config.merge == merge for batch in self._batches)

    def interactive_rows(self, queue: Queue) -> int:
        batches = (batch for batch in self._batches if batch.queue is queue and not batch.bulk)
        return sum(batch.rows for batch in batches)

    def start(self, batch: Batch, now: float) -> None:
        self._charge(now)
        self._batches[batch] = None

    def end(self, batch: Batch, now: float) -> None:
        """Remove a batch, after setting `batch.spent` to its final value."""
        self._charge(now)
        del self._batches[batch]

    def left(self, now: float, since: float | None = None) -> float:
        """Expected seconds until all running batches end; with `since`, the lower bound."""
        self._charge(now)
        seconds = 0.0
        for batch in self._batches:
            queue, size = batch.queue, batch.size
            needs = queue.seconds(size) if since is None else queue.least(size, since)
            seconds += max(needs - batch.spent, 0.0)
        return seconds

    def _charge(self, now: float) -> None:
        # An engine that computes one batch after the other only decodes the later ones.
        first = next((batch for batch in self._batches if not batch.queue.side_by_side), None)
        computing = [each for each in self._batches if each is first or each.queue.side_by_side]
        for batch in computing:
            batch.spent += (now - self._charged_at) / len(computing)
        self._charged_at = now
