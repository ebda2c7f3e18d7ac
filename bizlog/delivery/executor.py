"""
Threads for blocking calls of sinks that go on working while the interpreter exits.

The stock executor refuses work once the interpreter shuts down, and from 3.12 on no
thread can be started then; `getaddrinfo` and `asyncio.to_thread` would fail just when
the last events leave. So the threads are started beforehand, as daemons, and take
their work from a SimpleQueue (tried on 3.11, 3.12 and 3.13).
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

_Work: TypeAlias = "tuple[Future[Any], Callable[[], Any]]"


class DaemonExecutor(ThreadPoolExecutor):
    """
    An executor for `loop.set_default_executor`; its threads start with it.

    Args:
        threads: How many blocking calls may run at the same time.
    """

    def __init__(self, threads: int) -> None:
        super().__init__(max_workers=threads)
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._count = threads
        for number in range(threads):
            name = f"bizlog-blocking-{number}"
            threading.Thread(target=self._serve, name=name, daemon=True).start()

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Hand a call to the threads; works during interpreter exit, too."""
        future: Future[Any] = Future()
        self._work.put((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: the loop calls this while work may still run; see `retire`."""

    def retire(self) -> None:
        """Let the threads end as soon as they are idle."""
        for _ in range(self._count):
            self._work.put(None)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            future, call = work
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001  # it belongs to the waiter
                future.set_exception(error)
            del work, future, call  # keep nothing alive while waiting
