"""SIGTERM on request: one handler, which comes before the host's and gives way to it."""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest

from bizlog.delivery import termination as module

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


class Ending:
    """Stands in for an engine, and notes its calls."""

    def __init__(self, timeout=2.0):
        self.shutdown_timeout = timeout
        self.is_closing_here = False
        self.calls = []

    def begin_flush(self):
        self.calls.append("begin_flush")

    def flush(self, timeout):
        assert 0.0 <= timeout <= 2.0
        self.calls.append("flush")
        return True

    def shutdown(self, timeout):
        assert 0.0 <= timeout <= 2.0
        self.calls.append("shutdown")
        module.forget(self)
        return True


@pytest.fixture
def host(monkeypatch):
    """A host with a handler of its own, which notes its calls; a handler of ours."""
    calls = []

    def handle(number, frame):
        calls.append(number)

    before = signal.signal(signal.SIGTERM, handle)
    monkeypatch.setattr(module, "_handler", module._Handler())
    monkeypatch.setattr(module, "_watched", module.weakref.WeakSet())
    yield handle, calls
    signal.signal(signal.SIGTERM, before)


def send():
    """Send SIGTERM to this process; the handler has run when it returns."""
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_handler_of_the_host_comes_after_a_flush(host):
    """It may let the process live on, so nothing is shut down."""
    _, calls = host
    one, two = Ending(), Ending(1.0)
    module.watch(one)
    module.watch(two)

    send()

    assert calls == [signal.SIGTERM]
    assert one.calls == two.calls == ["begin_flush", "flush"]


def test_the_handler_goes_with_the_last_engine(host):
    """It is installed once, for all of them."""
    handle, _ = host
    one, two = Ending(), Ending()
    module.watch(one)
    module.watch(two)
    assert signal.getsignal(signal.SIGTERM) is module._handler

    module.forget(one)
    assert signal.getsignal(signal.SIGTERM) is module._handler
    module.forget(two)
    assert signal.getsignal(signal.SIGTERM) is handle
    module.forget(two)
    assert signal.getsignal(signal.SIGTERM) is handle


def test_it_may_be_asked_for_again(host):
    """A second configuration has it, too."""
    handle, _ = host
    for _ in range(2):
        engine = Ending()
        module.watch(engine)
        assert signal.getsignal(signal.SIGTERM) is module._handler
        module.forget(engine)
        assert signal.getsignal(signal.SIGTERM) is handle


def test_the_default_ends_the_process_after_a_shutdown(host, monkeypatch):
    """The engines are shut down, the default is back in place, the signal is raised."""
    raised = []
    engine = Ending()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    module.watch(engine)

    def take_note(number):
        raised.append((number, signal.getsignal(signal.SIGTERM)))

    monkeypatch.setattr(module.signal, "raise_signal", take_note)
    send()

    assert engine.calls == ["begin_flush", "shutdown"]
    assert raised == [(signal.SIGTERM, signal.SIG_DFL)]


def test_a_signal_that_the_host_ignores_stays_ignored(host):
    """Nothing ends, so nothing needs to be delivered."""
    engine = Ending()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    module.watch(engine)

    send()

    assert engine.calls == []


def test_whoever_comes_to_stand_before_us_stays_there(host):
    """A server that put its handler before ours finds it there after a shutdown."""
    _, calls = host
    engine = Ending()
    module.watch(engine)
    ours = signal.getsignal(signal.SIGTERM)

    def server(number, frame):
        ours(number, frame)

    signal.signal(signal.SIGTERM, server)
    module.forget(engine)
    assert signal.getsignal(signal.SIGTERM) is server
    send()
    assert calls == [signal.SIGTERM]
    assert engine.calls == []


def test_a_signal_in_the_middle_of_a_shutdown_is_raised_afterwards(host):
    """The end is not begun twice; then the signal takes its course."""
    _, calls = host
    engine = Ending()
    module.watch(engine)
    engine.is_closing_here = True

    send()
    assert engine.calls == calls == []
    engine.is_closing_here = False
    module.forget(engine)

    assert calls == [signal.SIGTERM]


def test_only_the_main_thread_can_set_it_up(host, monkeypatch):
    """Elsewhere it is said that nothing will happen, and nothing does."""
    handle, _ = host
    told = []
    monkeypatch.setattr(module.diagnostics, "report", lambda *words: told.append(words))
    engine = Ending()

    thread = threading.Thread(target=module.watch, args=(engine,))
    thread.start()
    thread.join()

    assert "main thread" in told[0][1]
    assert signal.getsignal(signal.SIGTERM) is handle


def test_a_shutdown_on_another_thread_leaves_a_handler_that_does_nothing(host):
    """Only the main thread could take it away; it passes every signal on."""
    _, calls = host
    engine = Ending()
    module.watch(engine)

    thread = threading.Thread(target=module.forget, args=(engine,))
    thread.start()
    thread.join()
    send()

    assert calls == [signal.SIGTERM]
    assert engine.calls == []


def test_a_forked_child_forgets_the_engines_of_its_parent(host):
    """The handler stays, for those that the child makes."""
    _, calls = host
    parents, own = Ending(), Ending()
    module.watch(parents)

    module.forget_all()
    module.watch(own)
    send()

    assert parents.calls == []
    assert own.calls == ["begin_flush", "flush"]
    assert calls == [signal.SIGTERM]
