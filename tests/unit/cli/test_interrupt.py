"""Ctrl-C counted, not raised; what was in force before comes back."""

from __future__ import annotations

import _thread
import signal
import threading

import pytest

from bizlog.cli.interrupt import Interruption


def press():
    """Press Ctrl-C."""
    _thread.interrupt_main()


def press_and_go_on():
    """Press it, and run some more: signals are handled between two calls."""
    press()
    press_nothing()


def press_nothing():
    """Do nothing."""


def test_the_first_ones_are_counted_and_the_next_one_interrupts():
    """Once asks, twice is urgent, and a third one is Python's own again."""
    before = signal.getsignal(signal.SIGINT)
    interruption = Interruption()
    with interruption.caught():
        assert not interruption.asked
        press()
        assert (interruption.asked, interruption.urgent) == (True, False)
        press()
        assert interruption.urgent
        assert signal.getsignal(signal.SIGINT) is before
    assert signal.getsignal(signal.SIGINT) is before


def test_fewer_can_be_counted():
    """With one, the second interrupts at once."""
    interruption = Interruption()
    with interruption.caught(1):
        press()
        with pytest.raises(KeyboardInterrupt):
            press_and_go_on()


def test_outside_the_main_thread_nothing_is_caught():
    """Only the main thread can; others run all the same."""
    interruption = Interruption()

    def work():
        with interruption.caught():
            pass

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not interruption.asked
