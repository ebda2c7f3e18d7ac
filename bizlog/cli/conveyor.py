"""
From a command to a sink: a lane over a journal in memory, as in a service.

So a replay retries, splits and buries as a service would, and its ledger is the lane's.
Batches are cut at the same events each time the same events come, and get their names
from the journal's id, so that a sink which honours idempotency keys takes them once.
Everything runs in one event loop that the command owns.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from bizlog.delivery.journal import MemoryJournal
from bizlog.delivery.lane import Lane
from bizlog.delivery.policy import Batcher
from bizlog.ledger import Ledger, SinkLedger
from bizlog.sinks import Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType
    from typing import Self

    from bizlog.cli.interrupt import Interruption
    from bizlog.delivery.dead_letters import DeadLetterFolder
    from bizlog.sinks import BaseSink, Record

SINK_TIMEOUT_SECONDS = 30.0

# How many batches may wait beside the one under way: enough to keep a sink busy.
_BATCHES_AHEAD = 2

# Longer than any replay: a batch is due when it is full, or at the end.
_FLUSH_INTERVAL_SECONDS = 86_400.0

# How often a wait looks whether it should end, and what a sink gets to answer in once
# the command was interrupted.
_LOOK_SECONDS = 0.1
STOP_SECONDS = 5.0

# A sink that takes nothing for so long holds the command no longer; longer than the
# lane waits between two attempts.
STALL_SECONDS = 300.0


class Conveyor:
    """
    Carries records to one sink.

    Args:
        sink: URL of the sink, or the sink.
        journal_id: Names the batches.
        dead_letters: Where the lane keeps what the sink refuses.
        interruption: How often the command was interrupted: once ends the feeding,
            twice raises KeyboardInterrupt.
        batch_size: Events that make a batch, where the sink takes more.
        start: Position of the first record, which the batches' names begin with.
        clock: Monotonic seconds, by which the sink stalls.

    Attributes:
        stalled: Whether the sink took nothing for too long; then nothing is waited for
            any more.

    Raises:
        ConfigurationError: The URL names no sink.
        MissingExtraError: The sink's packages are not installed.
    """

    def __init__(
        self,
        sink: str | BaseSink,
        *,
        journal_id: str,
        dead_letters: DeadLetterFolder,
        interruption: Interruption,
        batch_size: int | None = None,
        start: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        route = Route(sink)
        self.stalled = False
        self._interruption = interruption
        self._journal = MemoryJournal(journal_id, start)
        self._max_events = min(route.sink.max_events, batch_size or (1 << 62))
        self._max_bytes = route.sink.max_bytes
        self._lane = self._make_lane(route, dead_letters)
        self._moved = asyncio.Event()
        self._offered = 0
        self._settled = start
        self._clock = clock
        self._settled_at = clock()
        self._running: asyncio.Task[None] | None = None

    def _make_lane(self, route: Route, dead_letters: DeadLetterFolder) -> Lane:
        return Lane(
            name=route.sink.name,
            route=route,
            journal=self._journal,
            batcher=Batcher(self._max_events, self._max_bytes, _FLUSH_INTERVAL_SECONDS),
            sink_timeout=SINK_TIMEOUT_SECONDS,
            dead_letters=dead_letters,
            on_progress=self._on_progress,
            clock=time.monotonic,
        )

    def _on_progress(self) -> None:
        self._journal.release(self._lane.settled)
        self._moved.set()

    @property
    def settled(self) -> int:
        """Position up to which all records are settled."""
        return self._lane.settled

    @property
    def over(self) -> bool:
        """Whether to feed no more: the command was interrupted, or the sink stalled."""
        return self.stalled or self._interruption.asked

    @property
    def ledger(self) -> Ledger:
        """Where the records are."""
        lane = self._lane
        sink = SinkLedger(
            offered=self._offered,
            delivered=lane.delivered,
            rejected=0,
            dropped=lane.dropped.snapshot(),
            dead_lettered=lane.dead_lettered,
            pending=lane.pending,
        )
        return Ledger({lane.name: sink})

    async def feed(self, records: Sequence[Record]) -> None:
        """Hand records over; waits while the sink has enough to do."""
        if not self._lane.pending:
            self._settled_at = self._clock()
        self._journal.append(records)
        self._offered += len(records)
        self._lane.notify(len(records), sum([len(record.data) for record in records]))
        while self._busy() and not self.over:
            await self._look(self._moved.wait())
            self._moved.clear()

    def _busy(self) -> bool:
        return (
            self._lane.pending > _BATCHES_AHEAD * self._max_events
            or self._lane.batcher.bytes > _BATCHES_AHEAD * self._max_bytes
        )

    async def pause(self, seconds: float) -> None:
        """Wait; an interruption ends it."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.over:  # noqa: ASYNC110  # a signal handler stops it
            await asyncio.sleep(min(left, _LOOK_SECONDS))

    async def finish(self) -> bool:
        """
        Have everything settled and made durable.

        Returns:
            Whether that happened; when the command was interrupted, the sink gets a
            few seconds for it.
        """
        flushed = asyncio.create_task(self._lane.flush())
        deadline = None
        while not flushed.done():
            if self.over and deadline is None:
                deadline = time.monotonic() + (0 if self.stalled else STOP_SECONDS)
            if deadline is not None and time.monotonic() >= deadline:
                flushed.cancel()
                return False
            await self._look(asyncio.shield(flushed))
        return flushed.result()

    async def _look(self, waiting_for: Awaitable[object]) -> None:
        """Wait a moment for something; notice a lane that died, a sink that stalls."""
        awaited = asyncio.ensure_future(waiting_for)
        assert self._running is not None
        await asyncio.wait(
            (awaited, self._running),
            timeout=_LOOK_SECONDS,
            return_when=asyncio.FIRST_COMPLETED,
        )
        awaited.cancel()
        if self._running.done():
            self._running.result()
        if self._interruption.urgent:
            raise KeyboardInterrupt
        now = self._clock()
        if self._settled != self._lane.settled:
            self._settled, self._settled_at = self._lane.settled, now
        self.stalled = now - self._settled_at > STALL_SECONDS

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._lane.run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._running is not None
        self._running.cancel()
        with suppress(asyncio.CancelledError):
            await self._running
        await self._lane.stop()


def stalled() -> str:
    """Say that the sink stalled."""
    return (
        f"the sink took nothing for {STALL_SECONDS:g} s; see to it, then give the same "
        "command again"
    )
