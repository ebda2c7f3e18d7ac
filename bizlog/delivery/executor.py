"""
Threads for blocking calls of sinks that go on working while the interpreter exits.

The stock executor refuses work once the interpreter shuts down, and from 3.12 on no
thread can be started then; `getaddrinfo` and `asyncio.to_thread` would fail just when
the last events leave. So the threads are started beforehand, as daemons, and take
their work from a SimpleQueue (tried on 3.11, 3.12 and 3.13). A call cannot be
cancelled: one that hangs keeps its thread, so another one is started in its place, as
long as that is possible; else a sink that hangs would take the threads of all others.
"""

from __future__ import annotations

from _queue import SimpleQueue  # the native one: gevent replaces the one in `queue`
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from bizlog import separation
from bizlog.delivery.threads import start_thread

if TYPE_CHECKING:
    from collections.abc import Callable

# As many as the stock executor has at most.
MOST_THREADS = 32

_Work: TypeAlias = "tuple[Future[Any], Callable[[], Any]]"


class DaemonExecutor(ThreadPoolExecutor):
    """
    An executor for `loop.set_default_executor`; its threads start with it.

    Args:
        threads: How many blocking calls may run at the same time, at least.
    """

    def __init__(self, threads: int) -> None:
        super().__init__(max_workers=threads)
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._count = 0
        self._unfinished = 0
        try:
            for _ in range(threads):
                self._add_thread()
        except RuntimeError:
            self.retire()
            raise

    def _add_thread(self) -> None:
        start_thread(self._serve, f"bizlog-blocking-{self._count}")
        self._count += 1

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Hand a call to the threads; works during interpreter exit, too."""
        future: Future[Any] = Future()
        self._unfinished += 1
        self._work.put((future, lambda: fn(*args, **kwargs)))
        if self._count < min(self._unfinished, MOST_THREADS):
            with suppress(RuntimeError):  # the interpreter exits: wait for a free one
                self._add_thread()
        return future

    def shutdown(  # the base class's signature
        self,
        wait: bool = True,  # noqa: FBT001, FBT002  # the signature
        *,
        cancel_futures: bool = False,
    ) -> None:
        """Do nothing: the loop calls this while work may still run; see `retire`."""

    def retire(self) -> None:
        """Let the threads end as soon as they are idle."""
        for _ in range(self._count):
            self._work.put(None)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            _work_off(*work)
            self._unfinished -= 1
            del work  # keep nothing alive while waiting


class InlineExecutor(ThreadPoolExecutor):
    """An executor for where no thread can start: who waits for a call makes it."""

    def __init__(self) -> None:
        super().__init__(max_workers=1)

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Make the call at once."""
        future: Future[Any] = Future()
        _work_off(future, lambda: fn(*args, **kwargs))
        return future


def _work_off(future: Future[Any], call: Callable[[], Any]) -> None:
    if future.set_running_or_notify_cancel():
        # run_in_executor brings no context along, as asyncio.to_thread does.
        entry = separation.enter()
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001  # it belongs to the waiter
            future.set_exception(error)
        finally:
            separation.leave(entry)
