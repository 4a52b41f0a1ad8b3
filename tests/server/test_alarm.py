"""What is late is told so; what is done is forgotten."""

from __future__ import annotations

import gc
import threading
import weakref

from featurewire_server.alarm import Alarm
from tests.server.support import TIMEOUT, wait_until


class Call:
    def __init__(self) -> None:
        self.late = threading.Event()

    def ring(self) -> None:
        self.late.set()


def test_it_rings_for_what_takes_longer_and_in_order() -> None:
    alarm, rung = Alarm(0.2, "alarm"), []
    done = threading.Event()
    with alarm.over(lambda: rung.append(1)), alarm.over(lambda: rung.append(2)):
        with alarm.over(lambda: rung.append("done")):
            pass
        with alarm.over(done.set):
            assert done.wait(TIMEOUT)
    assert rung == [1, 2]
    alarm.close()


def test_it_rings_again_after_it_had_nothing_to_do() -> None:
    alarm = Alarm(0.05, "alarm")
    for _ in range(3):
        wait_until(lambda: alarm._idle)
        call = Call()
        with alarm.over(call.ring):
            assert call.late.wait(TIMEOUT)


def test_it_can_be_made_to_ring_earlier() -> None:
    alarm, call = Alarm(3600, "alarm"), Call()
    with alarm.over(call.ring):
        wait_until(lambda: not alarm._idle)
        alarm.shorten(0.05)
        assert call.late.wait(TIMEOUT)


def test_it_keeps_nothing_of_what_is_done() -> None:
    alarm, first = Alarm(60, "alarm"), Call()
    with alarm.over(first.ring):  # a late one in front must not keep those behind it
        later = Call()
        with alarm.over(later.ring):
            assert len(alarm) == 2
        gone = weakref.ref(later)
        del later
        gc.collect()
        assert gone() is None
        assert len(alarm) == 1
    assert not len(alarm)
    alarm.close()


def test_a_failure_does_not_end_it() -> None:
    alarm, call = Alarm(0.05, "alarm"), Call()

    def fail() -> None:
        raise ValueError("ring")

    with alarm.over(fail), alarm.over(call.ring):
        assert call.late.wait(TIMEOUT)
