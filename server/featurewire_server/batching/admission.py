"""Which calls are refused because they could not be answered before their deadlines.

An idle server admits. Otherwise a call is refused if its answer would come too late by what runs,
what waits and the measured times, provided that these are recent: where the size of the call was
not measured lately, one call is admitted as a probe, so that refusals never rest on hearsay.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from featurewire_server.batching.policy import POLICY
from featurewire_server.batching.queue import Line, Queue
from featurewire_server.batching.task import Task
from featurewire_server.common.errors import ServingError, resource_exhausted


def admit(
    queue: Queue,
    task: Task,
    queues: Collection[Queue],
    *,
    busy: float | None,
    now: float,
    announced: bool = False,
) -> None:
    """Raise RESOURCE_EXHAUSTED if `task` cannot be answered before its deadline.

    `queues`: those in which something waits; `busy`: seconds until what runs has ended, None if
    nothing runs; `announced`: the task itself comes later, if it is not refused.
    """
    if task.deadline is None:
        return
    if busy is None and not queues:
        task.probe = True
        return
    left = task.deadline - now
    needs = seconds_until_answer(queue, task, queues, busy=busy or 0.0, left=left, now=now)
    if needs <= left:
        return
    rows = queue.padded(min(task.rows, queue.largest))
    if queue.estimate.is_hearsay(rows, now):
        task.probe = True
        if not announced:
            queue.estimate.probe(rows, now)
        return
    queue.refused_at = now
    raise too_little_time(needs, left, retry_after=max(needs - left, queue.seconds(rows)))


def too_little_time(needs: float, left: float, *, retry_after: float) -> ServingError:
    return resource_exhausted(
        f"The answer needs about {_shown(needs)} s and the call had {_shown(max(left, 0.0))} s "
        "left before its deadline: raise its timeout, send less at once, or add servers",
        retry_after=retry_after,
        reason="time",
    )


def _shown(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds >= 1 else f"{seconds:.2g}"


def seconds_until_answer(
    queue: Queue, task: Task, queues: Iterable[Queue], *, busy: float, left: float, now: float
) -> float:
    """Seconds until `task`, which comes now and has `left` seconds, is answered.

    Interactive tasks come before bulk, but for its share. At most one batch of each other queue
    comes between two of this one.
    """
    others = [other for other in queues if other is not queue]
    waits = []
    for work, batches in _own_work(queue, task, left=left, start=now + busy, now=now):
        work += sum(_between(other, other.lines[task.bulk], batches) for other in others)
        if task.bulk:
            work += sum(_whole(other, other.lines[False]) for other in (queue, *others))
        elif any(other.lines[True] for other in (queue, *others)):
            work /= 1 - POLICY.bulk_share
        waits.append((busy + work) * (1 + POLICY.margin))
    return min(waits)


def _own_work(
    queue: Queue, task: Task, *, left: float, start: float, now: float
) -> list[tuple[float, int]]:
    """Seconds of this queue's batches up to the task's last, and how many there are; for each size
    of batch that may be chosen."""
    line, rows = queue.lines[task.bulk], task.rows
    ahead = line.ahead_of(task)
    if not queue.config.merge:
        mean = line.rows / max(len(line.tasks), 1)
        count = round(ahead / mean) if mean else 0
        return [(count * queue.seconds(round(mean)) + queue.seconds(rows), count + 1)]
    if queue.overloaded(now):
        size = max(full_size(queue, left), rows)
        full, rest = divmod(ahead, size)
        seconds, count = (full + 1) * queue.seconds(size), full + 1
        if rest and not queue.in_time(line.oldest, size, start):
            return [(seconds + queue.seconds(rest), count + 1)]  # in a smaller batch of their own
        return [(seconds, count)]
    found = []
    for size in queue.sizes():
        if size >= rows or queue.config.split:
            full, rest = divmod(ahead + rows, size)
            seconds = full * queue.seconds(size) + (queue.seconds(rest) if rest else 0.0)
            found.append((seconds, full + bool(rest)))
    return found


def full_size(queue: Queue, left: float) -> int:
    """Rows of the largest batch that calls with `left` seconds can fill and still be answered.

    Small batches cost throughput. So in overload a call needs time for such a batch, and for a part
    of it while it fills.
    """
    enough = (1 - POLICY.margin) * left
    return max((size for size in queue.sizes() if queue.needed(size) <= enough), default=1)


def _between(other: Queue, line: Line, batches: int) -> float:
    """Seconds that batches of another queue take between this many of one queue."""
    waiting = other.batches(line)
    if not waiting:
        return 0.0
    return min(waiting, batches) * other.seconds(min(-(-line.rows // waiting), other.largest))


def _whole(queue: Queue, line: Line) -> float:
    """Seconds for all that waits in a line."""
    return _between(queue, line, queue.batches(line))
