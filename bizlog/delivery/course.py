"""
The course of a delivery: what runs on bizlog's loop, from the first event to the end.

Pump and lanes run until `close` names the seconds that are left. Then what waits is
delivered as far as the time goes, except for the last part, which is kept for stopping
the sinks; what is not settled by then goes to the dead letters. All of it ends 0.05 s
after that time at the latest, whatever the sinks do, as long as they leave the loop
alone. Driven by the loop's clock; without a thread.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from bizlog import diagnostics
from bizlog._wording import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from bizlog.delivery.pump import Pump

# What a call that was cancelled gets to end in (more than a lane grants its sink), and
# what the sinks have to stop in.
CANCEL_SECONDS = 0.08
STOP_SECONDS = 0.2

# What each of the three steps of the end has at least, though the time is over: twice
# this and half of it again are the 0.05 s.
LEAST_SECONDS = 0.02

# The part of the time that is kept for these steps; of a short time, a quarter.
CLOSING_SECONDS = 0.3


class Course:
    """
    Runs a pump and its lanes until told to close.

    Args:
        pump: What to run; its lanes with it.
        bury: Puts what is left at the end into the dead letters.

    Attributes:
        flushed: Whether the sinks settled everything in time; False until the end.
    """

    def __init__(self, pump: Pump, bury: Callable[[], None]) -> None:
        self._pump = pump
        self._bury = bury
        self._closing = asyncio.Event()
        self._deadline = 0.0
        self.flushed = False
        self._last_flush: asyncio.Task[bool] | None = None

    async def run(self) -> None:
        """Run to the end."""
        tasks = [asyncio.create_task(lane.run()) for lane in self._pump.lanes]
        tasks.append(asyncio.create_task(self._pump.run()))
        for task in tasks:
            task.add_done_callback(_report_crash)
        await self._closing.wait()
        self.flushed = await self._flush()
        await _cancel(tasks, self._left(CANCEL_SECONDS))
        self._bury()
        await self._stop_sinks()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        await _cancel(rest, max(LEAST_SECONDS / 2, self._left(CANCEL_SECONDS) / 2))

    def close(self, timeout: float) -> None:
        """
        Deliver what waits and come to an end.

        Args:
            timeout: Seconds for all of it.
        """
        self._deadline = asyncio.get_running_loop().time() + timeout
        self._closing.set()

    def hurry(self) -> None:
        """Come to an end now: nobody waits any longer."""
        self.close(0.0)
        if self._last_flush is not None:
            self._last_flush.cancel()

    async def _flush(self) -> bool:
        self._last_flush = task = asyncio.create_task(self._pump.flush())
        left = self._deadline - asyncio.get_running_loop().time()
        await asyncio.wait((task,), timeout=left - min(CLOSING_SECONDS, left / 4))
        return task.done() and not task.cancelled() and task.result()

    def _left(self, most: float) -> float:
        left = self._deadline - asyncio.get_running_loop().time()
        return max(LEAST_SECONDS, min(left, most))

    async def _stop_sinks(self) -> None:
        stops = [asyncio.create_task(lane.stop()) for lane in self._pump.lanes]
        await asyncio.wait(stops, timeout=self._left(STOP_SECONDS))


async def _cancel(tasks: Collection[asyncio.Task[Any]], seconds: float) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)


def _report_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        diagnostics.report("engine", f"a part of bizlog died: {reason_of(error)}")
