"""
The engine: the only owner of a thread, an event loop and an exit hook.

The thread starts with the first event, is a daemon, and runs the pump and the lanes on
a loop of its own until `shutdown`. At the plain end of the interpreter an atexit hook
shuts every engine down within its deadline; daemon threads still run at that point.
Nothing here holds a lock on the emit path: the one thread is started by whoever takes
the only token out of a list, which is atomic.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from bizlog import diagnostics, stamps
from bizlog.delivery.policy import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

    from bizlog.delivery.executor import DaemonExecutor
    from bizlog.delivery.pump import Pump
    from bizlog.delivery.queue import FrontQueue

BLOCKING_THREADS = 4

# What shutdown may take beyond its deadline, to stop the sinks and to write what is
# left into the dead letters; of this, what the sinks have to stop in, and what a call
# that was cancelled has to end in (more than a lane grants its sink).
GRACE_SECONDS = 0.4
STOP_SECONDS = 0.2
CANCEL_SECONDS = 0.08

# What `inf` means: a month, which threads can still wait for.
LONGEST_SECONDS = 30 * 86_400.0

_running: set[Engine] = set()


class Engine:
    """
    Runs a pump on a thread of its own.

    Args:
        queue: The front queue.
        make_pump: Builds the pump; called once.
        shutdown_timeout: Seconds that the exit hook allows.
    """

    def __init__(
        self,
        queue: FrontQueue,
        make_pump: Callable[[], Pump],
        shutdown_timeout: float,
    ) -> None:
        self._queue = queue
        self.pump = make_pump()
        self._shutdown_timeout = shutdown_timeout
        self._start_token = [True]
        self._run_token = [True]
        self._close_token = [True]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._executor: DaemonExecutor | None = None
        self._ready = threading.Event()
        self._closed = threading.Event()
        self._closing: asyncio.Event | None = None
        self._pid = os.getpid()
        with suppress(RuntimeError):
            _executor_class()  # now: during the interpreter's exit it is too late

    def wake(self) -> None:
        """Have the pump look at the queue; from any thread, at any time."""
        loop = self._loop
        if loop is None:
            self._start()
            return
        try:
            loop.call_soon_threadsafe(self.pump.wake)
        except RuntimeError:
            return  # the loop is closed: shutdown takes what the queue still gets

    def _start(self) -> None:
        try:
            self._start_token.pop()
        except IndexError:
            return
        try:
            self._launch()
        except RecursionError:
            # Nothing is wrong but the depth of the call: the next event starts it.
            self._start_token.append(True)
            raise
        except RuntimeError:
            # No thread can start while the interpreter exits; the exit hook finds the
            # records in the queue.
            if self._executor is not None:
                self._executor.retire()
            self._thread = None
            self._ready.set()

    def _launch(self) -> None:
        _running.add(self)
        # Here and not on the new thread: a script that ends at once would be in its
        # exit by then, when no thread can start (3.12).
        self._executor = self._executor or _executor_class()(BLOCKING_THREADS)
        thread = threading.Thread(target=self._run, name="bizlog", daemon=True)
        self._thread = thread
        thread.start()

    def _run(self) -> None:
        try:
            self._run_token.pop()
        except IndexError:
            return  # started twice, near the recursion limit: the other one runs
        executor = self._executor
        assert executor is not None
        loop = asyncio.new_event_loop()
        loop.set_default_executor(executor)
        loop.set_exception_handler(_report_fault)
        self._queue.pump_thread = threading.get_ident()
        self._closing = asyncio.Event()
        self._loop = loop
        self._ready.set()
        try:
            # Not asyncio.run: it would shut the executor down by starting a thread.
            main = loop.create_task(self._main())
            while not main.done():
                _run_on(loop, main)
        except BaseException as error:  # noqa: BLE001  # the last line of defence
            diagnostics.report("engine", f"bizlog's thread died: {error!r}")
        finally:
            self._closed.set()
            executor.retire()
            loop.close()

    async def _main(self) -> None:
        assert self._closing is not None
        tasks = [asyncio.create_task(lane.run()) for lane in self.pump.lanes]
        tasks.append(asyncio.create_task(self.pump.run()))
        for task in tasks:
            task.add_done_callback(_report_crash)
        await self._closing.wait()
        await _cancel(tasks)
        self.pump.abandon("not delivered before the shutdown deadline")
        stops = [asyncio.create_task(lane.stop()) for lane in self.pump.lanes]
        await asyncio.wait(stops, timeout=STOP_SECONDS)
        await _cancel(asyncio.all_tasks() - {asyncio.current_task()})

    def _submit(self, call: Coroutine[Any, Any, bool], timeout: float) -> bool:
        """Run a coroutine on the loop; False also when time runs out."""
        if self._loop is None:
            call.close()
            return False
        try:
            future = asyncio.run_coroutine_threadsafe(call, self._loop)
        except RuntimeError:
            call.close()
            return False
        try:
            return future.result(timeout)
        except (TimeoutError, concurrent.futures.CancelledError):
            future.cancel()
            return False

    def flush(self, timeout: float) -> bool:
        """
        Wait until all that was offered is settled and the sinks are flushed.

        Args:
            timeout: Seconds to wait.

        Returns:
            Whether that happened in time and no sink failed to flush. On bizlog's own
            thread (inside a sink) it cannot be waited for, and the answer is False.
        """
        if self._closed.is_set() or self._on_own_thread():
            return self._closed.is_set()
        timeout = min(timeout, LONGEST_SECONDS)
        deadline = time.monotonic() + timeout
        if self._thread is None:
            if not len(self._queue) and not self.pump.rejected:
                return True
            self._start()
        if not self._ready.wait(timeout):
            return False
        return self._submit(self.pump.flush(), deadline - time.monotonic())

    def _on_own_thread(self) -> bool:
        return threading.get_ident() == self._queue.pump_thread

    def shutdown(self, timeout: float) -> bool:
        """
        Refuse new events, deliver what waits, stop the sinks and the thread.

        Args:
            timeout: Seconds for all sinks together; what is not delivered by then goes
                to the dead letters.

        Returns:
            Whether everything was settled by the sinks in time.
        """
        try:
            self._close_token.pop()
        except IndexError:
            return self._closed.wait(min(timeout, LONGEST_SECONDS) + GRACE_SECONDS)
        self._queue.closed = True
        flushed = self.flush(timeout)
        self._end_thread()
        _running.discard(self)
        return flushed

    def _end_thread(self) -> None:
        if self._thread is not None:
            self._ready.wait(GRACE_SECONDS)  # it may have started this very moment
        loop, closing = self._loop, self._closing
        if self._thread is not None and loop is not None and closing is not None:
            try:
                loop.call_soon_threadsafe(closing.set)
            except RuntimeError:
                diagnostics.logger.debug("bizlog's loop was closed already")
            if self._on_own_thread():
                return
            if self._closed.wait(GRACE_SECONDS):
                self._thread.join(GRACE_SECONDS)
                return
        # The thread never ran, or a sink blocks its loop: what is left is ours.
        self.pump.abandon("bizlog's thread was not available at shutdown")
        self._closed.set()

    def begin_flush(self) -> None:
        """Start flushing without waiting for it."""
        if self._loop is not None and self._pid == os.getpid():
            call = self.pump.flush()
            try:
                asyncio.run_coroutine_threadsafe(call, self._loop)
            except RuntimeError:
                call.close()

    def at_exit(self, deadline: float) -> None:
        """Shut down within what is left of a deadline, in the process that started."""
        if self._pid == os.getpid():
            self.shutdown(max(0.0, deadline - time.monotonic()))

    @property
    def shutdown_timeout(self) -> float:
        """Seconds that the exit hook allows."""
        return self._shutdown_timeout


def _executor_class() -> type[DaemonExecutor]:
    # 1 ms that `import bizlog` need not take.
    from bizlog.delivery.executor import DaemonExecutor  # noqa: PLC0415

    return DaemonExecutor


def _run_on(loop: asyncio.AbstractEventLoop, main: asyncio.Task[None]) -> None:
    try:
        loop.run_until_complete(main)
    except (SystemExit, KeyboardInterrupt) as error:
        # A task that a sink started ends the loop with these; it goes on.
        diagnostics.report("engine", f"a task of a sink raised {reason_of(error)}")


async def _cancel(tasks: Collection[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=CANCEL_SECONDS)


def _report_fault(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Keep what asyncio has to say about a sink's tasks out of the host's logs."""
    error = context.get("exception")
    why = f" ({reason_of(error)})" if error else ""
    diagnostics.report("engine.loop", f"{context['message']}{why}")


def _report_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        diagnostics.report("engine", f"a part of bizlog died: {reason_of(error)}")


def _shut_down_all() -> None:
    engines = list(_running)
    if engines:
        longest = max(engine.shutdown_timeout for engine in engines)
        deadline = time.monotonic() + longest
        for engine in engines:
            engine.begin_flush()  # all at the same time, before waiting for the first
        for engine in engines:
            engine.at_exit(deadline)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=stamps.draw_anew)

# Registered with the import, so it runs after the exit hooks of the application, which
# may still emit.
atexit.register(_shut_down_all)
