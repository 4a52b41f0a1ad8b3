"""Refuses calls that cannot be answered before their deadlines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from featurewire_server.batching.policy import POLICY
from featurewire_server.batching.queue import Queue
from featurewire_server.batching.task import Task
from featurewire_server.common.errors import resource_exhausted


def admit(
    queue: Queue,
    task: Task,
    queues: Collection[Queue],
    *,
    busy: float | None,
    now: float,
    since: float,
) -> None:
    """Raise RESOURCE_EXHAUSTED if `task` cannot be answered before its deadline.

    `queues`: all queues with waiting tasks; `busy`: seconds until all running batches end, None if
    the server is idle; `since`: batches that ended before this time are too old to refuse a call.
    """
    if task.deadline is None or (busy is None and not queues):
        return
    left = task.deadline - now
    needs = seconds_until_answer(queue, task, queues, busy=busy or 0.0, now=now, since=since)
    if needs <= left:
        return
    queue.refused_at = now
    raise resource_exhausted(
        f"The server is overloaded: the answer needs about {_shown(needs)} s and the call had "
        f"{_shown(max(left, 0.0))} s left before its deadline. Raise the timeout above "
        f"{_shown(needs)} s, send less at once, or add servers",
        retry_after=max(needs - left, queue.seconds(min(task.rows, queue.largest))),
        reason="time",
    )


def _shown(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds >= 1 else f"{seconds:.2g}"


def seconds_until_answer(
    queue: Queue,
    task: Task,
    queues: Collection[Queue],
    *,
    busy: float,
    now: float,
    since: float,
) -> float:
    """Seconds until the answer to `task`, which arrives now.

    Interactive tasks run before bulk tasks, except for the share of bulk. At most one batch of
    each other queue runs between two batches of this queue.
    """
    ahead = queue.lines[task.bulk].ahead_of(task)
    if queue.config.merge and queue.overloaded(now):
        seconds, batches = _full_batches(queue, ahead, task, now=now, busy=busy, since=since)
    else:
        seconds, batches = _work(queue, [*ahead, task], since)
        if queue.overloaded(now):
            seconds *= _growth(ahead, task)
    for other in queues:
        if other is not queue and other.lines[task.bulk]:
            work, count = _work(other, other.lines[task.bulk].tasks, since)
            seconds += work * min(1.0, batches / count)
    if task.bulk:
        seconds += sum(_work(each, each.lines[False].tasks, since)[0] for each in queues)
    elif any(each.lines[True] for each in queues):
        seconds /= 1 - POLICY.bulk_share
    return (busy + seconds) * (1 + POLICY.margin)


def _growth(ahead: Sequence[Task], task: Task) -> float:
    """The factor by which the work ahead of `task` is expected to grow during overload.

    Round robin puts the next calls of callers with fewer waiting tasks before this one. The factor
    is limited, so that a call with twice the time that it needs is always admitted.
    """
    last_turns: dict[object, int] = {each.caller: each.turn for each in ahead}
    own = last_turns.pop(task.caller, None)
    if own is None:
        return 1.0
    overtaking = sum(own + 1 - turn for turn in last_turns.values())
    return min(1 + overtaking / len(ahead), 2 / (1 + POLICY.margin))


def _work(queue: Queue, tasks: Sequence[Task], since: float) -> tuple[float, int]:
    """Seconds and number of batches that `tasks`, waiting in one queue, need."""
    rows = Counter(task.left for task in tasks)
    alone = sum(count * queue.least(size, since) for size, count in rows.items())
    if not queue.config.merge:
        return alone, len(tasks)
    full, rest = divmod(sum(size * count for size, count in rows.items()), queue.largest)
    together = full * queue.seconds(queue.largest) + (queue.seconds(rest) if rest else 0.0)
    return min(alone, together), full + bool(rest)


def _full_batches(
    queue: Queue, ahead: Sequence[Task], task: Task, *, now: float, busy: float, since: float
) -> tuple[float, int]:
    """Seconds and number of batches until the answer to `task` during overload.

    Small batches cost throughput. So a call must have time for the largest batch that fits its
    timeout, and must leave a fifth of the timeout to fill that batch. Waiting tasks that are too
    late for such a batch run before it.
    """
    filled_at = now + POLICY.margin * ((task.deadline or now) - now)
    size = max([task.rows, *(s for s in queue.sizes if queue.in_time(task, s, filled_at))])
    late = sum(each.left for each in ahead if not queue.in_time(each, size, now + busy))
    batches = int(sum(each.left for each in ahead) * _growth(ahead, task)) // size + 1
    seconds = queue.seconds(size) if size > task.rows else queue.least(size, since)
    return batches * seconds + (queue.seconds(late) if late else 0.0), batches
