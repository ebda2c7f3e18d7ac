"""
Native threads, and waiting for them, whatever the host has made of `threading`.

Where gevent has patched it, `threading.Thread` is a greenlet of the host's thread: a
pump in it would wait behind every busy greenlet (measured: a second), and a lock taken
across threads may never wake its waiter. There bizlog's threads come from gevent's own
pool of native threads, and who waits for them looks every 2 ms and lets other greenlets
run meanwhile. Which of the two holds is found out at each start, so that the order of
imports does not matter.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_POLL_SECONDS = 0.002


def is_greened() -> bool:
    """Whether gevent has patched `threading`."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def start_thread(work: Callable[[], None], name: str) -> threading.Thread | None:
    """
    Start a daemon thread, a native one in any case.

    Args:
        work: What it does.
        name: Its name, where it can have one.

    Returns:
        The thread, to be joined; None where it is one of gevent's.

    Raises:
        RuntimeError: No thread can be started: the interpreter exits, or the system
            has none left.
    """
    if is_greened():
        _start_beside_gevent(work)
        return None
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


def _start_beside_gevent(work: Callable[[], None]) -> None:
    from importlib import import_module  # noqa: PLC0415  # gevent is optional

    # A pool for each, which lets its thread go when it is done: one that hangs is in
    # nobody's way.
    pool = import_module("gevent.threadpool").ThreadPool(1, idle_task_timeout=0.1)
    pool.spawn(work)


def new_loop() -> asyncio.AbstractEventLoop:
    """Make an event loop that is gevent's in nothing."""
    return _NativeLoop() if is_greened() else asyncio.new_event_loop()


def _original(module: str, name: str) -> Any:
    return sys.modules["gevent.monkey"].get_original(module, name)


class _NativeLoop(asyncio.SelectorEventLoop):
    """Waits and looks names up as the system does, where gevent has replaced both."""

    def __init__(self) -> None:
        super().__init__(_original("selectors", "DefaultSelector")())

    async def getaddrinfo(self, *where: Any, **options: Any) -> Any:
        # gevent's would start a thread, which the interpreter's exit forbids (3.12).
        look_up = partial(_original("socket", "getaddrinfo"), *where, **options)
        return await self.run_in_executor(None, look_up)


class Flag:
    """
    Raised once, by any thread, and waited for by other threads or greenlets.

    Who waits brings a lock of its own, so that none is shared: a signal handler that
    interrupts a wait may wait itself, where a `threading.Event` would hang.
    """

    def __init__(self) -> None:
        self._raised = False
        self._waiters: list[threading.Lock] = []

    def is_set(self) -> bool:
        """Whether it was raised."""
        return self._raised

    def set(self) -> None:
        """Raise it."""
        self._raised = True
        with suppress(IndexError):
            while True:
                self._waiters.pop().release()

    def wait(self, timeout: float) -> bool:
        """
        Wait until it is raised.

        Args:
            timeout: Seconds to wait.

        Returns:
            Whether it is.
        """
        if is_greened():
            return self._poll(timeout)
        waiter = threading.Lock()
        waiter.acquire()
        self._waiters.append(waiter)
        if not self._raised:
            waiter.acquire(timeout=max(0.0, timeout))
        return self._raised

    def _poll(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while not self._raised and time.monotonic() < deadline:
            _let_others_run()
        return self._raised


def _let_others_run() -> None:
    gevent: Any = sys.modules["gevent"]
    if gevent.getcurrent() is gevent.get_hub():  # a signal handler may be called there
        _original("time", "sleep")(_POLL_SECONDS)
    else:
        gevent.sleep(_POLL_SECONDS)


class Answer(Flag):
    """
    What a call on bizlog's loop came to; False until it is there.

    Attributes:
        value: The answer.
    """

    value = False

    def give(self, value: bool) -> None:  # noqa: FBT001  # an answer
        """Answer, and raise the flag."""
        self.value = value
        self.set()
