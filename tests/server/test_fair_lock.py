"""A lock that goes to those who wait for it in the order in which they came."""

from __future__ import annotations

import threading

from featurewire_server.common.fair_lock import FairLock
from tests.support.waiting import wait_until


def test_those_who_wait_come_before_one_who_has_just_had_it() -> None:
    lock, order = FairLock(), []

    def enter(name: str) -> None:
        with lock:
            order.append(name)

    threads = []
    with lock:
        for name in ("first", "second", "third"):
            threads.append(threading.Thread(target=enter, args=(name,)))
            threads[-1].start()
            wait_until(lambda: len(lock._waiting) == len(threads))
    enter("the one before")
    for thread in threads:
        thread.join(30)
    assert order == ["first", "second", "third", "the one before"]


def test_one_at_a_time_holds_it() -> None:
    lock, inside, most = FairLock(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(2000):
            with lock:
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (inside, most) == (0, 1)


def test_it_is_free_again_after_an_error() -> None:
    lock = FairLock()
    try:
        with lock:
            raise ValueError
    except ValueError:
        pass
    with lock:
        assert lock._held
    assert not lock._held
