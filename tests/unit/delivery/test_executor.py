"""The executor for blocking calls: threads beforehand, results, and hanging calls."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from bizlog.delivery import executor as module
from bizlog.delivery.executor import DaemonExecutor, InlineExecutor


@pytest.fixture
def executor(until):
    """An executor with two threads, retired afterwards."""
    until(lambda: not blocking_threads())
    made = DaemonExecutor(2)
    yield made
    made.retire()
    until(lambda: not blocking_threads())


def blocking_threads():
    """Name the executor threads that are alive."""
    return [t for t in threading.enumerate() if t.name.startswith("bizlog-blocking")]


def test_all_threads_exist_before_the_first_call(executor):
    """None has to be started while the interpreter exits; all are daemons."""
    threads = blocking_threads()

    assert len(threads) == 2
    assert all(thread.daemon for thread in threads)


def test_a_call_gets_its_arguments_and_gives_its_result(executor):
    """`submit` is that of any executor."""
    assert executor.submit(int, "ff", base=16).result(10) == 255


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(2), KeyboardInterrupt()])
def test_whatever_a_call_raises_belongs_to_the_waiter(executor, error):
    """The thread lives on, even after SystemExit."""

    def fail():
        raise error

    for _ in range(4):
        assert executor.submit(fail).exception(10) is error
    assert executor.submit(str, 1).result(10) == "1"


def test_a_cancelled_call_is_never_made(executor, monkeypatch):
    """What was cancelled before a thread took it does not run."""
    monkeypatch.setattr(module, "MOST_THREADS", 2)
    go, ran = threading.Event(), []
    blockers = [executor.submit(go.wait, 10) for _ in range(2)]
    waiting = executor.submit(ran.append, 1)
    assert waiting.cancel()
    go.set()

    assert all(blocker.result(10) for blocker in blockers)
    assert executor.submit(str, 1).result(10) == "1"
    assert ran == []


def test_calls_that_hang_do_not_take_the_threads_of_others(executor):
    """One thread more for each call that hangs, so that the next one is served."""
    go = threading.Event()
    hanging = [executor.submit(go.wait, 30) for _ in range(10)]

    assert executor.submit(str, 1).result(10) == "1"

    go.set()
    assert all(call.result(10) for call in hanging)


def test_the_number_of_threads_is_bounded(executor, monkeypatch):
    """Beyond the bound calls wait for a free thread; none is lost."""
    monkeypatch.setattr(module, "MOST_THREADS", 5)
    go = threading.Event()
    calls = [executor.submit(go.wait, 30) for _ in range(12)]

    assert len(blocking_threads()) == 5

    go.set()
    assert all(call.result(10) for call in calls)


def test_calls_wait_where_no_thread_can_start(executor, monkeypatch):
    """While the interpreter exits the threads there are do all the work."""

    def refuse(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    go = threading.Event()
    calls = [executor.submit(go.wait, 30) for _ in range(6)]
    go.set()

    assert all(call.result(10) for call in calls)


def test_shutdown_does_nothing(executor):
    """The loop's `close` must not end threads whose work may still run."""
    executor.shutdown(wait=True, cancel_futures=True)

    assert executor.submit(str, 1).result(10) == "1"


def test_retired_threads_end(until):
    """After `retire` no thread stays, the added ones included."""
    until(lambda: not blocking_threads())
    made, go = DaemonExecutor(2), threading.Event()
    calls = [made.submit(go.wait, 30) for _ in range(5)]
    assert len(blocking_threads()) == 5

    made.retire()
    go.set()

    assert all(call.result(10) for call in calls)
    until(lambda: not blocking_threads())


def test_it_serves_an_event_loop(executor):
    """`to_thread` and `getaddrinfo` of a loop work through it, in a thread of ours."""

    async def main():
        asyncio.get_running_loop().set_default_executor(executor)
        name = await asyncio.to_thread(lambda: threading.current_thread().name)
        found = await asyncio.get_running_loop().getaddrinfo(
            "127.0.0.1", 80, type=socket.SOCK_STREAM
        )
        return name, found

    name, found = asyncio.run(main())

    assert name.startswith("bizlog-blocking")
    assert found[0][4] == ("127.0.0.1", 80)


def test_inline_a_call_is_made_at_once():
    """Where no thread can start, whoever asks makes the call, and gets what it raises."""
    executor, threads = InlineExecutor(), threading.active_count()

    assert executor.submit(threading.get_ident).result(0) == threading.get_ident()
    assert isinstance(executor.submit(int, "x").exception(0), ValueError)
    assert threading.active_count() == threads
