"""Ctrl-C at the worst moment: between a row and its count."""

from __future__ import annotations

import signal

import pytest

from featurewire.plugin.interrupts import interruptible


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_waits_for_the_end_of_the_held_block():
    done = []

    def work() -> None:
        with interruptible() as hold:
            with hold:
                interrupt()
                done.append("the rest of the block")
            done.append("what follows")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["the rest of the block"]


def test_outside_a_held_block_it_comes_at_once():
    done = []

    def work() -> None:
        with interruptible() as hold:
            with hold:
                done.append("held")
            interrupt()
            done.append("too late")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["held"]


def test_an_interrupt_is_raised_once():
    with interruptible() as hold:
        with pytest.raises(KeyboardInterrupt), hold:
            interrupt()
        with hold:
            pass


def test_what_handled_sigint_before_does_so_again():
    before = signal.getsignal(signal.SIGINT)
    with interruptible():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_the_caller_has_ignored_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(number)
            assert signal.getsignal(number) is signal.SIG_IGN
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_failure_inside_the_block_gives_way_to_the_interrupt():
    def work() -> None:
        with interruptible() as hold, hold:
            interrupt()
            raise OSError("disk full")

    with pytest.raises(KeyboardInterrupt) as raised:
        work()
    assert isinstance(raised.value.__context__, OSError)


def test_a_termination_is_held_back_too_and_has_its_own_status():
    done = []

    def work() -> None:
        with interruptible() as hold, hold:
            signal.raise_signal(signal.SIGTERM)
            done.append("the rest of the block")

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert done == ["the rest of the block"]
    assert caught.value.args == (143,)
    assert signal.getsignal(signal.SIGTERM) is before
