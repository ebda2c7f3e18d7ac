"""
Calls into a sink, which is foreign code: bounded in time, and nothing escapes.

Whatever a sink raises is an answer. Owned by the loop of the sink's lane.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from bizlog import diagnostics, separation
from bizlog._wording import reason_of
from bizlog.ledger import Durations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bizlog.sinks import BaseSink, Batch

# What a call that was cancelled gets to end in; then it is left to itself.
CANCEL_SECONDS = 0.05


class StartError(Exception):
    """
    The sink could not be started.

    Args:
        failure: What it raised.
    """

    def __init__(self, failure: BaseException) -> None:
        self.failure = failure


class Calls:
    """
    Calls one sink.

    Args:
        sink: The sink.
        name: Its name in the ledger.
        timeout: Seconds for each call.
        clock: Monotonic seconds.

    Attributes:
        started: Whether the sink was started.
        durations: How long it took to deliver.
    """

    def __init__(
        self, sink: BaseSink, name: str, timeout: float, clock: Callable[[], float]
    ) -> None:
        self._sink = sink
        self._name = name
        self._timeout = timeout
        self._clock = clock
        self._starting = asyncio.Lock()
        self.started = False
        self.durations = Durations()

    async def deliver(self, part: Batch) -> Any:
        """
        Have the sink take a batch; start it before the first one.

        Returns:
            The sink's answer, what it raised, or a `StartError`.
        """
        failure = await self._start()
        if failure is not None:
            return failure
        began = self._clock()
        try:
            return await self._guarded(self._sink.deliver, part)
        finally:
            self.durations.add(self._clock() - began)

    async def flush(self) -> bool:
        """Have a sink that was started flush; say whether it could."""
        return not self.started or await self._call("flush", self._sink.flush)

    async def stop(self) -> None:
        """Stop a sink that was started."""
        if self.started:
            self.started = False
            await self._call("stop", self._sink.stop)

    async def _start(self) -> StartError | None:
        if self.started:
            return None
        async with self._starting:
            if self.started:
                return None
            failure = await self._guarded(self._sink.start)
            if isinstance(failure, BaseException):
                return StartError(failure)
            self.started = True
            return None

    async def _call(self, what: str, method: Callable[[], Awaitable[None]]) -> bool:
        answer = await self._guarded(method)
        if not isinstance(answer, BaseException):
            return True
        diagnostics.report(
            f"{self._name}.{what}",
            f"sink {self._name!r} failed in {what}: {reason_of(answer)}",
        )
        return False

    async def _guarded(self, method: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        # A sink is foreign code: whatever it raises is an answer, so that the lane
        # lives on, and a call that does not even end when it is cancelled is left to
        # itself. A task of its own keeps its cancellations from ours.
        task = asyncio.create_task(_answer(method, args))
        try:
            await asyncio.wait((task,), timeout=self._timeout)
        finally:
            late = not task.done()
            if late:
                task.cancel()
                await asyncio.wait((task,), timeout=CANCEL_SECONDS)
        if task.done() and not task.cancelled():
            return task.result()
        if late:
            return TimeoutError(f"no answer within {self._timeout:g} s")
        return asyncio.CancelledError()


async def _answer(method: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> Any:
    entry = separation.enter()  # what a sink logs and does is no business of the host's
    try:
        return await method(*args)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001  # SystemExit would end the loop
        return error
    finally:
        separation.leave(entry)
