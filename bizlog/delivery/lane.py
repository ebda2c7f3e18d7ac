"""
A lane: one sink's way through the journal. Owned by the pump's loop.

The lane holds a cursor; what lies behind it is settled (delivered, dead-lettered or
given up), what lies before it is pending. It seals a batch, sends it, settles it and
moves on. A sink that fails, hangs until its time-out or raises anything at all touches
nothing but its own lane.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from bizlog import diagnostics
from bizlog.delivery.dead_letters import DeadLetter, wall_clock
from bizlog.delivery.policy import Refusal, reason_of, refusals
from bizlog.ledger import Counts, Durations, Tallies
from bizlog.sinks import ACCEPTED, Batch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from bizlog.delivery.dead_letters import DeadLetterFolder
    from bizlog.delivery.journal import Journal
    from bizlog.delivery.policy import Batcher
    from bizlog.sinks import Record, Route

# What a call that was cancelled gets to end in; then it is left to itself.
CANCEL_SECONDS = 0.05


class Lane:
    """
    Delivers the records of a journal to one sink.

    Args:
        name: Name in the ledger.
        route: The sink, and which events belong to it.
        journal: Where the records come from.
        batcher: Says when a batch is due.
        sink_timeout: Seconds for each call into the sink.
        dead_letters: Where refused events are kept.
        on_progress: Called after each batch.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        name: str,
        route: Route,
        journal: Journal,
        batcher: Batcher,
        sink_timeout: float,
        dead_letters: DeadLetterFolder,
        on_progress: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self.sink_type = route.sink.name
        self.batcher = batcher
        self._route = route
        self._sink = route.sink
        self._journal = journal
        self._timeout = sink_timeout
        self._dead_letters = dead_letters
        self._on_progress = on_progress
        self._clock = clock
        self._changed = asyncio.Event()
        self._next = journal.end
        self._in_flight: Batch | None = None
        self._started = False
        self._flush_to = 0
        self._flush_waiters: list[asyncio.Future[bool]] = []
        self.abandoned = False
        self.not_routed = 0
        self.delivered = 0
        self.dead_lettered = 0
        self.dropped = Counts("lane_full", "dead_letters_failed")
        self.refused = Tallies(("error_type",))
        self.durations = Durations()
        self.notified_at = 0.0
        self._arrivals: deque[tuple[int, float]] = deque()

    @property
    def settled(self) -> int:
        """Position up to which every record is settled."""
        return self._in_flight.first if self._in_flight else self._next

    @property
    def pending(self) -> int:
        """Records of the journal that are not settled."""
        batch = self._in_flight
        flying = batch.last - batch.first + 1 if batch else 0
        return self._journal.end - self._next + flying

    @property
    def oldest_at(self) -> float | None:
        """When the oldest record that is not settled arrived; None without any."""
        try:
            return self._arrivals[0][1]
        except IndexError:
            return None

    def notify(self, events: int, size: int) -> None:
        """Learn that records were appended to the journal."""
        now = self.notified_at = self._clock()
        self._arrivals.append((self._journal.end, now))
        self.batcher.add(events, size, now)
        self._changed.set()

    async def flush(self) -> bool:
        """Settle all that the journal holds now; say whether the sink could flush."""
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._flush_to = self._journal.end
        self._flush_waiters.append(waiter)
        self._changed.set()
        return await waiter

    async def run(self) -> None:
        """Deliver batches until cancelled, or abandoned by another thread."""
        while not self.abandoned:
            await self._until_due()
            await self._deliver_next()

    async def stop(self) -> None:
        """Stop the sink; called after `run` has ended."""
        if self._started:
            self._started = False
            await self._call("stop", self._sink.stop)

    async def _until_due(self) -> None:
        while True:
            self._changed.clear()
            if self._flush_waiters and self._next >= self._flush_to:
                await self._finish_flush()
            if self._next < self._flush_to:
                return
            wait = self.batcher.due_in(self._clock())
            if wait == 0.0:
                return
            # Not wait_for: on 3.11 it swallows a cancellation that meets a change.
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()

    async def _finish_flush(self) -> None:
        waiters, self._flush_waiters = self._flush_waiters, []
        flushed = not self._started or await self._call("flush", self._sink.flush)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(flushed)

    async def _call(self, what: str, method: Callable[[], Awaitable[None]]) -> bool:
        answer = await self._guarded(method)
        if not isinstance(answer, BaseException):
            return True
        diagnostics.report(
            f"{self.name}.{what}",
            f"sink {self.name!r} failed in {what}: {reason_of(answer)}",
        )
        return False

    async def _guarded(self, method: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        # A sink is foreign code: whatever it raises is an answer, so that this lane
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

    async def _deliver_next(self) -> None:
        first = self._next
        records = self._journal.read(first, self._sink.max_events, self._sink.max_bytes)
        self._next = first + len(records)
        self.batcher.remove(len(records), _size(records), self._clock())
        if not records:
            return
        whole = Batch(self._journal.journal_id, first, self._next - 1, records)
        self._in_flight = whole
        batch, astray = self._routed(whole)
        first_at = wall_clock()
        answer = await self._send(batch) if batch.records else ACCEPTED
        if self.abandoned:
            return
        refused = refusals(len(batch.records), answer)
        self._report(refused, len(batch.records))
        await self._bury(batch, refused, first_at)
        await self._bury(astray, _failed_routes(astray.records), first_at)
        self.delivered += len(batch.records) - len(refused)
        self.not_routed += len(records) - len(batch.records) - len(astray.records)
        self._in_flight = None
        self._forget_arrivals()
        self._on_progress()

    def _forget_arrivals(self) -> None:
        while self._arrivals and self._arrivals[0][0] <= self.settled:
            self._arrivals.popleft()

    def _routed(self, batch: Batch) -> tuple[Batch, Batch]:
        """Part what belongs to this sink from what its route could not decide."""
        if not self._route.conditions:
            return batch, msgspec.structs.replace(batch, records=())
        chosen: list[Record] = []
        astray: list[Record] = []
        for record in batch.records:
            try:
                if self._route.matches(record):
                    chosen.append(record)
            except BaseException:  # noqa: BLE001  # a user's predicate
                astray.append(record)
        return (
            msgspec.structs.replace(batch, records=chosen),
            msgspec.structs.replace(batch, records=astray),
        )

    async def _send(self, batch: Batch) -> Any:
        if not self._started:
            failure = await self._guarded(self._sink.start)
            if isinstance(failure, BaseException):
                return failure
            self._started = True
        began = self._clock()
        try:
            return await self._guarded(self._sink.deliver, batch)
        finally:
            self.durations.add(self._clock() - began)

    def _report(self, refused: Sequence[Refusal], events: int) -> None:
        if refused:
            diagnostics.report(
                f"{self.name}.send",
                f"sink {self.name!r} refused {len(refused)} of {events} events "
                f"({refused[0].reason}); they go to the dead letters in "
                f"{self._dead_letters.path.parent}",
            )

    async def _bury(
        self, batch: Batch, refused: Sequence[Refusal], first_at: str
    ) -> None:
        if not refused:
            return
        letters = self._letters(batch, refused, first_at)
        try:
            await asyncio.to_thread(self._dead_letters.write, letters)
        except OSError as error:
            self._count_lost(len(letters), error)
        else:
            self._count_buried(refused)

    def _count_buried(self, refused: Sequence[Refusal]) -> None:
        self.dead_lettered += len(refused)
        for refusal in refused:
            self.refused.of(refusal.error_type).events += 1

    def _letters(
        self, batch: Batch, refused: Sequence[Refusal], first_at: str
    ) -> list[DeadLetter]:
        last_at = wall_clock()
        return [
            DeadLetter(
                reason=refusal.reason,
                path=refusal.path,
                sink=self.name,
                attempts=1,
                first_at=first_at,
                last_at=last_at,
                event_id=record.event_id,
                record=msgspec.Raw(record.data),
            )
            for refusal in refused
            for record in (batch.records[refusal.index],)
        ]

    def _count_lost(self, events: int, error: OSError) -> None:
        self.dropped.add("dead_letters_failed", events)
        diagnostics.report(
            "dead_letters",
            f"{events} events of sink {self.name!r} are lost: dead letters cannot be "
            f"written to {self._dead_letters.path.parent} ({reason_of(error)})",
        )

    def give_up(self, events: int) -> None:
        """Give up the oldest waiting records: other lanes need the room."""
        given_up = self._journal.read(self._next, events, _size_of_any)
        self._next += len(given_up)
        self._forget_arrivals()
        self.batcher.remove(len(given_up), _size(given_up), self._clock())
        chosen, astray = self._routed(Batch("", 0, 0, given_up))
        lost = len(chosen.records) + len(astray.records)
        self.not_routed += len(given_up) - lost
        self.dropped.add("lane_full", lost)
        if not lost:
            return
        diagnostics.report(
            f"{self.name}.lane_full",
            f"sink {self.name!r} is too slow for the others: its {lost} "
            "oldest events were given up",
        )

    def abandon(self, waiting: Sequence[Record], reason: str) -> None:
        """
        Put all that is not settled into the dead letters; the deadline has passed.

        Runs on bizlog's thread, or on the caller's when bizlog's thread is stuck.
        """
        self.abandoned = True
        rest = [*self._unsettled(), *waiting]
        if not rest:
            return
        batch, astray = self._routed(Batch("", 0, 0, rest))
        everything = [*batch.records, *astray.records]
        self.not_routed += len(rest) - len(everything)
        refused = _all_refused(everything, reason, "shutdown")
        whole = msgspec.structs.replace(batch, records=everything)
        letters = self._letters(whole, refused, wall_clock())
        try:
            self._dead_letters.write(letters)
        except OSError as error:
            self._count_lost(len(letters), error)
        else:
            self._count_buried(refused)

    def _unsettled(self) -> list[Record]:
        flying = list(self._in_flight.records) if self._in_flight else []
        self._in_flight = None
        waiting = self._journal.read(
            self._next, self._journal.end - self._next, _size_of_any
        )
        self._next = self._journal.end
        self._arrivals.clear()
        return flying + waiting


async def _answer(method: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> Any:
    try:
        return await method(*args)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001  # SystemExit would end the loop
        return error


_size_of_any = 1 << 62


def _size(records: Sequence[Record]) -> int:
    return sum([len(record.data) for record in records])


def _failed_routes(astray: Sequence[Record]) -> list[Refusal]:
    return _all_refused(astray, "the route's predicate raised", "route")


def _all_refused(
    records: Sequence[Record], reason: str, error_type: str
) -> list[Refusal]:
    indices = range(len(records))
    return [Refusal(index, reason, error_type=error_type) for index in indices]
