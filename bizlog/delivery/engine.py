"""
The engine: the only owner of a thread, an event loop and an exit hook.

The thread starts with the first event, is a daemon, and runs the pump and the lanes on
a loop of its own until `shutdown`. At the plain end of the interpreter an atexit hook
shuts every engine down within its deadline; daemon threads still run at that point.
Where no thread can start, who flushes or shuts down runs the loop instead. Nothing here
holds a lock on the emit path: the one thread is started by whoever takes the only token
out of a list, which is atomic.

A forked child has none of the threads. Its clients make new engines; those of the
parent are left as they are. They are not even deleted, for the frame of the thread that
ran one still refers to it, and no such frame ever ends in the child.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from bizlog import diagnostics, stamps
from bizlog._wording import reason_of
from bizlog.delivery.threads import Answer, Flag, new_loop, start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import ThreadPoolExecutor
    from types import ModuleType

    from bizlog.delivery.executor import DaemonExecutor
    from bizlog.delivery.lane import Lane
    from bizlog.delivery.pump import Pump
    from bizlog.delivery.queue import FrontQueue

BLOCKING_THREADS = 4

# How long shutdown waits for the thread beyond its deadline; then a sink blocks the
# loop, and the caller takes care of what is left.
GRACE_SECONDS = 0.25

# How long it waits for a thread that writes just then what is left.
BURIAL_SECONDS = 5.0

# What `inf` means: a month, which threads can still wait for.
LONGEST_SECONDS = 30 * 86_400.0

# After that a host that had no thread left is asked for one again.
RETRY_SECONDS = 1.0

# How often who waits for an answer looks whether there will be none.
_PART_SECONDS = 0.25

# Behind the finalizers of the application and of multiprocessing itself.
_EXIT_PRIORITY = -100

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
        self._burial_token = [True]
        self._loop: asyncio.AbstractEventLoop | None = None
        from bizlog.delivery.course import Course  # noqa: PLC0415  # as the pump

        self._course = Course(self.pump, self._bury_late)
        self._main: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        self._retry_at = 0.0
        self._executor: DaemonExecutor | None = None
        self._ready = Flag()
        self._closed = Flag()
        self._closer: int | None = None
        self._pid = os.getpid()
        self._left: list[object] = []
        with suppress(RuntimeError):
            _executors()  # now: during the interpreter's exit it is too late

    @property
    def was_started(self) -> bool:
        """Whether lanes ran, so that sinks may have been used."""
        return self._loop is not None

    def leave_to_parent(self, belongings: list[object]) -> None:
        """Keep what is the parent's for as long as this forked child lives."""
        if not self._left:
            self.pump.leave_to_parent()
        self._left += [self, *belongings]

    def heed_sigterm(self) -> None:
        """Shut down at SIGTERM, too."""
        from bizlog.delivery import termination  # noqa: PLC0415  # for who asks

        termination.watch(self)

    def _forget_sigterm(self) -> None:
        if termination := sys.modules.get("bizlog.delivery.termination"):
            termination.forget(self)

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

    # Starting

    def _start(self) -> None:
        if self._closed.is_set():
            return  # nothing would end the thread
        if self._retry_at and time.monotonic() < self._retry_at:
            self._queue.awake = False
            return
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
            # The interpreter exits, or the host lets no thread start. The records wait
            # in the queue for who flushes; a later event tries again.
            if self._executor is not None:
                self._executor.retire()
                self._executor = None
            self._retry_at = time.monotonic() + RETRY_SECONDS
            self._queue.awake = False
            self._start_token.append(True)
            ready, self._ready = self._ready, Flag()
            ready.set()  # who waits for the thread need not

    def _launch(self) -> None:
        _running.add(self)
        if _exits:
            raise RuntimeError("no thread is started by the exit hook")
        _exit_with_multiprocessing()
        # Here and not on the new thread: a script that ends at once would be in its
        # exit by then, when no thread can start (3.12).
        self._executor = self._executor or _executors().DaemonExecutor(BLOCKING_THREADS)
        self._thread = start_thread(self._run, "bizlog")

    def _run(self) -> None:
        try:
            self._run_token.pop()
        except IndexError:
            return  # started twice, near the recursion limit: the other one runs
        executor = self._executor
        assert executor is not None
        loop = self._open_loop(executor)
        self._ready.set()
        if self._closed.is_set():
            loop.call_soon(self._course.hurry)  # shutdown did not wait for this thread
        self._run_to_the_end(loop)
        executor.retire()

    def _open_loop(self, executor: ThreadPoolExecutor) -> asyncio.AbstractEventLoop:
        loop = new_loop()
        # In the host's debug mode asyncio would tell the host of sinks that are slow.
        loop.set_debug(enabled=False)
        loop.set_default_executor(executor)
        loop.set_exception_handler(_report_fault)
        self._main = loop.create_task(self._course.run())
        self._queue.pump_thread = threading.get_ident()
        self._loop = loop
        return loop

    def _run_to_the_end(self, loop: asyncio.AbstractEventLoop) -> None:
        main = self._main
        assert main is not None
        try:
            # Not asyncio.run: it would shut the executor down by starting a thread.
            while not main.done():
                _run_on(loop, main)
        except BaseException as error:  # noqa: BLE001  # the last line of defence
            diagnostics.report("engine", f"bizlog's thread died: {error!r}")
        finally:
            self._closed.set()
            loop.close()

    # Flushing

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
        if self._is_idle():
            return True
        if not self._is_up(timeout):
            return self._start_failed() and self._flush_here(timeout)
        return self._submit(self.pump.flush, deadline)

    def _is_idle(self) -> bool:
        """Whether nothing was started, and nothing waits for it."""
        is_new = self._loop is None and bool(self._start_token)
        return is_new and not len(self._queue) and not self.pump.rejected

    def _is_up(self, timeout: float) -> bool:
        """Start the thread, or wait for who starts it."""
        ready = self._ready
        if self._loop is None:
            self._start()
            if not self._start_failed():
                ready.wait(timeout)
        return self._loop is not None and not self._start_failed()

    def _start_failed(self) -> bool:
        return bool(self._start_token)

    def _submit(
        self, call: Callable[[], Coroutine[Any, Any, bool]], deadline: float
    ) -> bool:
        """Run a coroutine on the loop; False also when time runs out."""
        answer = Answer()
        task = self._begin(call, answer)
        if task is None:
            return False
        # In parts: a loop that is closed meanwhile gives no answer.
        while not answer.wait(min(_PART_SECONDS, deadline - time.monotonic())):
            if time.monotonic() >= deadline or self._closed.is_set():
                self._call(lambda: [each.cancel() for each in task])
                break
        return answer.value

    def _begin(
        self, call: Callable[[], Coroutine[Any, Any, bool]], answer: Answer
    ) -> list[asyncio.Task[bool]] | None:
        """Have the loop begin a task; the list is empty until it has."""
        begun: list[asyncio.Task[bool]] = []

        def begin() -> None:
            task = asyncio.get_running_loop().create_task(call())
            task.add_done_callback(lambda task: answer.give(_outcome(task)))
            begun.append(task)

        return begun if self._call(begin) else None

    def _call(self, what: Callable[[], object]) -> bool:
        """Have the loop call something; False where it is closed."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:
            return False
        return True

    def _on_own_thread(self) -> bool:
        return threading.get_ident() == self._queue.pump_thread

    def begin_flush(self) -> None:
        """Start flushing without waiting for it."""
        if self._loop is not None and self._pid == os.getpid():
            self._begin(self.pump.flush, Answer())

    # Without a thread

    def _flush_here(self, timeout: float) -> bool:
        """Deliver on the caller's thread, which waits for it anyway."""
        loop = self._take_loop()
        if loop is None:
            return False
        try:
            return loop.run_until_complete(_within(self.pump.flush, timeout))
        finally:
            self._give_loop_back()

    def _close_here(self, deadline: float) -> None:
        loop = self._take_loop()
        if loop is None:
            return
        try:
            loop.call_soon(self._course.close, deadline - time.monotonic())
            self._run_to_the_end(loop)
        finally:
            self._give_loop_back()

    def _take_loop(self) -> asyncio.AbstractEventLoop | None:
        """Take hold of the loop; None where another thread, or its own loop, has it."""
        if asyncio._get_running_loop() is not None:  # noqa: SLF001  # the public one raises
            return None
        try:
            self._run_token.pop()
        except IndexError:
            return None
        self._queue.pump_thread = threading.get_ident()
        return self._loop or self._open_loop(_executors().InlineExecutor())

    def _give_loop_back(self) -> None:
        self._queue.pump_thread = None
        self._run_token.append(True)

    # The end

    def shutdown(self, timeout: float) -> bool:
        """
        Refuse new events, deliver what waits, stop the sinks and the thread.

        Args:
            timeout: Seconds for all sinks together; what is not delivered by then goes
                to the dead letters.

        Returns:
            Whether everything was settled by the sinks in time.
        """
        timeout = min(timeout, LONGEST_SECONDS)
        try:
            self._close_token.pop()
        except IndexError:
            return self._wait_for_closer(timeout)
        self._closer = threading.get_ident()
        self._queue.closed = True
        if self._is_idle():
            self._course.flushed = True
            self._closed.set()
            self._forget_sigterm()
            return True
        try:
            self._close(time.monotonic() + timeout)
        except BaseException:  # ctrl-C: nobody waits any longer
            self._hurry()
            raise
        finally:
            _running.discard(self)
            self._tell_end(timeout)
            self._forget_sigterm()
        return self._course.flushed

    @property
    def is_closing_here(self) -> bool:
        """Whether this very thread is in `shutdown`, below a signal handler."""
        return self._closer == threading.get_ident() and not self._closed.is_set()

    def _wait_for_closer(self, timeout: float) -> bool:
        if self.is_closing_here:
            return False
        return self._closed.wait(timeout + GRACE_SECONDS) and self._course.flushed

    def _close(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if not self._is_up(max(left, GRACE_SECONDS)) and self._start_failed():
            self._close_here(deadline)
        elif self._loop is not None:
            self._call(lambda: self._course.close(deadline - time.monotonic()))
            if self._on_own_thread():
                return
            self._closed.wait(max(0.0, deadline - time.monotonic()) + GRACE_SECONDS)
        self._make_sure()

    def _hurry(self) -> None:
        if self._loop is not None and self._call(self._course.hurry):
            self._closed.wait(GRACE_SECONDS)
        self._make_sure()

    def _make_sure(self) -> None:
        """Take what is left, if the thread never ran, or a sink blocks its loop."""
        if not self._closed.is_set():
            if not self._bury("bizlog's thread was not available at shutdown"):
                self._closed.wait(BURIAL_SECONDS)
            self._closed.set()
            if self._loop is not None:
                self._call(self._course.hurry)  # it may have started this very moment
        elif self._thread is not None:
            self._thread.join(GRACE_SECONDS)

    def _bury_late(self) -> None:
        self._bury("not delivered before the shutdown deadline")

    def _bury(self, reason: str) -> bool:
        """Dead-letter what is left, once; False where another thread does."""
        try:
            self._burial_token.pop()
        except IndexError:
            return False
        self.pump.abandon(reason)
        return True

    def _tell_end(self, timeout: float) -> None:
        """Say in one line where everything went, unless that is to the sinks."""
        if self._closed.is_set() and not self._course.flushed:
            fates = "; ".join(_fate(lane) for lane in self.pump.lanes)
            diagnostics.report(
                f"engine.end.{id(self):x}",
                f"not everything could be delivered in the {timeout:.3g} s of the "
                f"shutdown: {fates}",
            )

    def at_exit(self, deadline: float) -> None:
        """Shut down within what is left of a deadline, in the process that started."""
        if self._pid == os.getpid():
            self.shutdown(max(0.0, deadline - time.monotonic()))

    @property
    def shutdown_timeout(self) -> float:
        """Seconds that the exit hook allows."""
        return self._shutdown_timeout


def _executors() -> ModuleType:
    # 1 ms that `import bizlog` need not take.
    from bizlog.delivery import executor  # noqa: PLC0415  # as said

    return executor


def _run_on(loop: asyncio.AbstractEventLoop, main: asyncio.Task[None]) -> None:
    try:
        loop.run_until_complete(main)
    except (SystemExit, KeyboardInterrupt) as error:
        # A task that a sink started ends the loop with these; it goes on.
        diagnostics.report("engine", f"a task of a sink raised {reason_of(error)}")


async def _within(
    call: Callable[[], Coroutine[Any, Any, bool]], seconds: float
) -> bool:
    task = asyncio.create_task(call())
    await asyncio.wait((task,), timeout=max(0.0, seconds))
    task.cancel()
    return task.done() and _outcome(task)


def _outcome(task: asyncio.Task[bool]) -> bool:
    return not task.cancelled() and not task.exception() and task.result()


def _report_fault(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Keep what asyncio has to say about a sink's tasks out of the host's logs."""
    error = context.get("exception")
    why = f" ({reason_of(error)})" if error else ""
    diagnostics.report("engine.loop", f"{context['message']}{why}")


def _fate(lane: Lane) -> str:
    """Say where the events of a lane are."""
    dropped = sum(lane.dropped.snapshot().values())
    events = {
        "delivered": lane.delivered,
        "dead-lettered": lane.dead_lettered,
        "dropped": dropped,
        "stay in the journal": lane.pending,
    }
    told = [f"{n:,} {what}" for what, n in events.items() if n or what == "delivered"]
    return f"{lane.name!r} {', '.join(told)}"


# Holds something while the exit hook runs.
_exits: list[bool] = []


def _shut_down_all() -> None:
    engines = list(_running)
    if engines:
        _exits.append(True)
        try:
            _shut_down(engines)
        finally:
            _exits.pop()


def _shut_down(engines: list[Engine]) -> None:
    longest = max(engine.shutdown_timeout for engine in engines)
    deadline = time.monotonic() + longest
    for engine in engines:
        engine.begin_flush()  # all at the same time, before waiting for the first
    for engine in engines:
        try:
            engine.at_exit(deadline)
        except KeyboardInterrupt:  # a second ctrl-C: whoever it is, is in a hurry
            deadline = 0.0


_finalized_in: list[int] = []


def _exit_with_multiprocessing() -> None:
    """Have a child of multiprocessing's end as others do: it runs no exit hooks."""
    process: Any = sys.modules.get("multiprocessing.process")
    pid = os.getpid()
    if process is None or process.parent_process() is None or pid in _finalized_in:
        return
    from multiprocessing import util  # noqa: PLC0415  # it is there already

    _finalized_in.append(pid)
    util.Finalize(None, _shut_down_all, exitpriority=_EXIT_PRIORITY)


def _begin_anew_in_child() -> None:
    stamps.draw_anew()
    for engine in _running:
        engine.leave_to_parent([])
    _running.clear()
    if termination := sys.modules.get("bizlog.delivery.termination"):
        termination.forget_all()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_begin_anew_in_child)

# Registered with the import, so it runs after the exit hooks of the application, which
# may still emit.
atexit.register(_shut_down_all)
