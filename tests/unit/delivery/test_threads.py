"""Threads and waiting: as the system has them, whatever gevent did to `threading`."""

from __future__ import annotations

import asyncio
import selectors
import signal
import socket
import sys
import threading
import time
import types

import pytest

from bizlog.delivery import threads as module
from bizlog.delivery.threads import Answer, Flag, is_greened, new_loop, start_thread


class Gevent:
    """Stands in for gevent: has patched `threading`, and notes what is asked of it."""

    def __init__(self):
        self.pools = []
        self.slept = []
        self.originals = []
        self.current = "a greenlet"

    def sleep(self, seconds):
        self.slept.append(seconds)
        time.sleep(0)

    def getcurrent(self):
        return self.current

    def get_hub(self):
        return "the hub"

    def get_original(self, module_name, name):
        self.originals.append(f"{module_name}.{name}")
        return getattr(sys.modules[module_name], name)

    def is_module_patched(self, name):
        return name == "threading"

    def pool(self, size, **options):
        self.pools.append((size, options))
        return types.SimpleNamespace(
            spawn=lambda work: threading.Thread(target=work).start()
        )


@pytest.fixture
def gevent(monkeypatch):
    """Have it look as though gevent had patched `threading`."""
    stand_in = Gevent()
    pools = types.SimpleNamespace(ThreadPool=stand_in.pool)
    monkeypatch.setitem(sys.modules, "gevent", stand_in)
    monkeypatch.setitem(sys.modules, "gevent.monkey", stand_in)
    monkeypatch.setitem(sys.modules, "gevent.threadpool", pools)
    return stand_in


def test_a_thread_is_a_named_daemon():
    """It keeps no process, and tells a debugger whose it is."""
    ran = []
    thread = start_thread(lambda: ran.append(threading.current_thread()), "bizlog-x")
    thread.join(10)

    assert ran == [thread]
    assert thread.daemon
    assert thread.name == "bizlog-x"


def test_beside_gevent_a_thread_comes_from_a_pool_of_its_own(gevent):
    """Native, and gone soon after its work is done."""
    ran = Flag()

    assert start_thread(ran.set, "bizlog-x") is None
    assert ran.wait(10)
    assert gevent.pools == [(1, {"idle_task_timeout": 0.1})]


def test_gevent_without_patches_changes_nothing(gevent, monkeypatch):
    """Being imported is not enough: somebody has to have patched `threading`."""
    assert is_greened()
    monkeypatch.setattr(gevent, "is_module_patched", lambda name: False)
    assert not is_greened()


def test_a_flag_is_seen_by_all_who_wait():
    """Those who came before it was raised, and those who come later."""
    flag, answers = Flag(), []
    waiting = [
        threading.Thread(target=lambda: answers.append(flag.wait(20))) for _ in range(5)
    ]
    for thread in waiting:
        thread.start()
    assert not flag.is_set()
    flag.set()
    for thread in waiting:
        thread.join(20)

    assert answers == [True] * 5
    assert flag.is_set()
    assert flag.wait(0)


@pytest.mark.parametrize("timeout", [-1.0, 0.0, 0.01])
def test_a_flag_that_is_not_raised_is_waited_for_in_vain(timeout):
    """False when the time is over; no time, or less than none, is no wait."""
    assert not Flag().wait(timeout)


def test_a_flag_is_never_missed():
    """However the raising and the beginning of the wait meet."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(300):
            flag = Flag()
            thread = threading.Thread(target=flag.set)
            thread.start()
            assert flag.wait(20)
            thread.join()
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
def test_a_signal_handler_may_wait_inside_a_wait():
    """It holds nothing that the wait below it needs, and the other way round."""
    flag, answers = Flag(), []

    def handle(*_):
        answers.append(flag.wait(0.001))

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.002)
    try:
        timer = threading.Timer(0.3, flag.set)
        timer.start()
        while not flag.wait(0.001):
            pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    timer.join()
    assert answers


def test_beside_gevent_other_greenlets_run_while_one_waits(gevent):
    """It looks, and sleeps cooperatively, until the flag is raised."""
    flag = Flag()
    threading.Timer(0.05, flag.set).start()

    assert flag.wait(20)
    assert set(gevent.slept) == {module._POLL_SECONDS}
    assert not Flag().wait(0.01)


def test_beside_gevent_the_hub_itself_may_wait(gevent):
    """A signal handler may be called there, where nothing can be switched to."""
    gevent.current = gevent.get_hub()

    assert not Flag().wait(0.01)
    assert gevent.slept == []
    assert "time.sleep" in gevent.originals


def test_an_answer_is_false_until_it_is_given():
    """Whoever gives up waiting has an answer, too."""
    answer = Answer()
    assert not answer.wait(0)
    assert answer.value is False
    answer.give(True)
    assert answer.wait(0)
    assert answer.value is True


def test_beside_gevent_the_loop_waits_and_looks_up_as_the_system_does(gevent):
    """Neither gevent's selector nor its resolver is asked."""
    loop = new_loop()
    selector = loop._selector
    try:
        found = loop.run_until_complete(
            loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
        )
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    assert found[0][4] == ("127.0.0.1", 80)
    assert isinstance(selector, selectors.DefaultSelector)
    assert gevent.originals == ["selectors.DefaultSelector", "socket.getaddrinfo"]


def test_otherwise_the_loop_is_asyncios_own():
    """Whatever policy the host has set."""
    loop = new_loop()
    try:
        assert not isinstance(loop, module._NativeLoop)
        assert isinstance(loop, asyncio.AbstractEventLoop)
    finally:
        loop.close()
