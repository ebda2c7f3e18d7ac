"""
A lane: one sink's way through the journals. Owned by the pump's loop.

The lane holds a cursor in the journal of this process and one in each journal that it
took over from a process that died. What lies behind a cursor is settled (delivered,
dead-lettered or given up), what lies before it is pending. The lane seals a batch,
sends it until each of its events is settled, and moves on. A sink that fails, hangs
until its time-out or raises anything at all touches nothing but its own lane.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from bizlog import diagnostics
from bizlog._wording import reason_of
from bizlog.delivery.calls import CANCEL_SECONDS, Calls, StartError
from bizlog.delivery.cursor import Cursor
from bizlog.delivery.dead_letters import wall_clock
from bizlog.delivery.flight import (
    Burial,
    Flight,
    all_refused,
    arrivals_within,
    letters,
    routed,
)
from bizlog.delivery.policy import (
    Backoff,
    Breaker,
    Delivery,
    Refusal,
    Verdict,
    judge,
)
from bizlog.exceptions import PermanentSinkError
from bizlog.ledger import Counts, Tallies
from bizlog.sinks import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bizlog.delivery.dead_letters import DeadLetterFolder
    from bizlog.delivery.journal import Journal, LaneState
    from bizlog.delivery.policy import Batcher
    from bizlog.delivery.receipts import Receipts, State
    from bizlog.sinks import Record, Route

# How long to leave a journal alone whose disk gives no answer.
ASK_AGAIN_SECONDS = 1.0

# How many batches, for each that may be under way, may overtake one that is not
# settled: what it holds up cannot be released.
OVERTAKING_BATCHES = 16

# From so many on, arrivals within ten seconds are taken for one: a sink that is dead
# for a day must not cost memory for each of them.
MOST_ARRIVALS = 10_000
ARRIVAL_SECONDS = 10.0


class Lane:
    """
    Delivers the records of journals to one sink.

    Args:
        name: Name in the ledger and in the journals.
        route: The sink, and which events belong to it.
        journal: The journal of this process.
        batcher: Says when a batch is due.
        sink_timeout: Seconds for each call into the sink.
        dead_letters: Where refused events are kept.
        on_progress: Called after each batch.
        clock: Monotonic seconds.
        backoff: Says how long to wait after a failure.
        lifetime: Seconds after its arrival at which an event that the sink does not
            take goes to the dead letters; None waits for ever.
        max_in_flight: Batches under way at the same time, if the sink allows more.
        receipts: Who waits for the fate of which event.

    Attributes:
        name: As given.
        live: The cursor in the journal of this process.
        adopted: Events taken over from processes that died.
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
        backoff: Backoff | None = None,
        lifetime: float | None = None,
        max_in_flight: int = 1,
        receipts: Receipts | None = None,
    ) -> None:
        self.name = name
        self.sink_type = route.sink.name
        self.batcher = batcher
        self.live = Cursor(journal, name)
        self.adopted = 0
        self._route = route
        self._sink = route.sink
        self._calls = Calls(route.sink, name, sink_timeout, clock)
        self._dead_letters = dead_letters
        self._on_progress = on_progress
        self._clock = clock
        self._backoff = backoff or Backoff()
        self._breaker = Breaker()
        self._troubled: Delivery | None = None
        self._lifetime = lifetime
        self._most_flights = max(1, min(max_in_flight, route.sink.max_in_flight))
        self._most_sealed = self._most_flights * OVERTAKING_BATCHES
        self._receipts = receipts
        self._inherited: deque[Cursor] = deque()
        self._inherited_at: dict[Cursor, float] = {}
        self._inherited_last = False
        self._changed = asyncio.Event()
        self._turn = asyncio.Event()
        self._flights: list[Flight] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._flush_to = 0
        self._due_to = 0
        self._flush_waiters: list[asyncio.Future[bool]] = []
        self.abandoned = False
        self.not_routed = 0
        self.delivered = 0
        self.dead_lettered = 0
        self.dropped = Counts(
            "lane_full", "journal_damaged", "journal_expired", "dead_letters_failed"
        )
        self.refused = Tallies(("error_type",))
        self.durations = self._calls.durations
        self.notified_at = 0.0
        self._arrivals: deque[tuple[int, float]] = deque()

    @property
    def settled(self) -> int:
        """Position up to which every record of this process is settled."""
        return self.live.settled

    @property
    def pending(self) -> int:
        """Records that are not settled, those taken over included."""
        inherited = sum([cursor.pending for cursor in self._inherited])
        return self.live.pending + inherited

    @property
    def oldest_at(self) -> float | None:
        """When the oldest record that is not settled arrived; None without any."""
        try:
            return self._arrivals[0][1]
        except IndexError:
            return None

    @property
    def failures(self) -> int:
        """How often the sink failed in a row."""
        return self._breaker.failures

    def notify(self, events: int, size: int) -> None:
        """Learn that records were appended to the journal of this process."""
        now = self.notified_at = self._clock()
        self._note_arrival(self.live.journal.end, now)
        self.batcher.add(events, size, now)
        self._changed.set()

    def _note_arrival(self, end: int, now: float) -> None:
        if len(self._arrivals) >= MOST_ARRIVALS:
            since = self._arrivals[-1][1]
            if now - since < ARRIVAL_SECONDS:
                self._arrivals[-1] = (end, since)
                return
        self._arrivals.append((end, now))

    def adopt(self, journal: Journal, state: LaneState | None, fresh: int = 0) -> None:
        """
        Take over what a journal of a dead process still holds for this sink.

        Args:
            journal: The journal.
            state: Where the sink stood in it; None where it knew no such sink.
            fresh: Position before which the events are too old.
        """
        cursor = Cursor(journal, self.name, state)
        self.adopted += cursor.pending
        self.dropped.add("journal_expired", cursor.skip_to(fresh))
        if cursor.pending:
            self._inherited.append(cursor)
            self._inherited_at[cursor] = self._clock()
            self._changed.set()
        else:
            cursor.save()

    def settled_in(self, journal: Journal) -> int:
        """Position up to which every record of a journal taken over is settled."""
        for cursor in self._inherited:
            if cursor.journal is journal:
                return cursor.settled
        return journal.end

    async def flush(self) -> bool:
        """Settle all that the journal holds now; say whether the sink could flush."""
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._flush_to = self.live.journal.end
        self._flush_waiters.append(waiter)
        self._changed.set()
        return await waiter

    def hasten(self, events: int) -> None:
        """Send what gathers now, and so many events that come next, without delay."""
        self._due_to = self.live.journal.end + events
        self._changed.set()

    def hurry(self) -> None:
        """Cut short the waits after failures: the end is near."""
        if self._troubled is not None:
            self._troubled.hurry(self._clock())
        for flight in self._flights:
            flight.delivery.hurry(self._clock())
        self._turn.set()

    async def run(self) -> None:
        """Deliver batches until cancelled, or abandoned by another thread."""
        try:
            while not self.abandoned:
                await self._until_due()
                if not self.abandoned and (flight := self._take_off()):
                    await self._send_off(flight)
        finally:
            await self._end_flights()

    async def _send_off(self, flight: Flight) -> None:
        if self._most_flights == 1:
            await self._fly(flight)
        else:
            self._fly_beside(flight)

    async def _end_flights(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=2 * CANCEL_SECONDS)

    async def stop(self) -> None:
        """Stop the sink; called after `run` has ended."""
        await self._calls.stop()

    # What is due

    async def _until_due(self) -> None:
        while not self.abandoned:
            self._changed.clear()
            if self._flush_waiters and self.live.settled >= self._flush_to:
                await self._finish_flush()
            wait = self._due_in()
            if wait == 0.0:
                return
            self._save()
            # Not wait_for: on 3.11 it swallows a cancellation that meets a change.
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()

    def _due_in(self) -> float | None:
        flying = len(self._flights)
        if flying >= self._most_flights or not self._breaker.allows(flying):
            return None
        now = self._clock()
        waits = [max(0.0, c.ask_at - now) for c in self._inherited if self._may_seal(c)]
        if (live := self._live_due_in()) is not None:
            waits.append(live)
        return min(waits, default=None)

    def _may_seal(self, cursor: Cursor) -> bool:
        return bool(cursor.waiting) and cursor.sealed < self._most_sealed

    def _live_due_in(self) -> float | None:
        if not self._may_seal(self.live):
            return None
        now = self._clock()
        wait = self.batcher.due_in(now)
        if self.live.next < max(self._flush_to, self._due_to):
            wait = 0.0
        return wait if wait is None else max(wait, self.live.ask_at - now)

    def _inheritance(self) -> Cursor | None:
        now = self._clock()
        ready = (c for c in self._inherited if self._may_seal(c) and c.ask_at <= now)
        return next(ready, None)

    def _save(self) -> None:
        """Have the journals know what is settled, now that nothing else is due."""
        self.live.save()
        for cursor in self._inherited:
            cursor.save()

    async def _finish_flush(self) -> None:
        waiters, self._flush_waiters = self._flush_waiters, []
        flushed = await self._calls.flush()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(flushed)

    # A batch under way

    def _take_off(self) -> Flight | None:
        cursor = self._next_cursor()
        whole = cursor.seal(self._sink.max_events, self._sink.max_bytes)
        if whole is None:
            cursor.ask_at = self._clock() + ASK_AGAIN_SECONDS
            return None
        if cursor is self.live:
            size = _size(whole.records)
            self.batcher.remove(len(whole.records), size, self._clock())
        ours = routed(self._route, whole)
        delivery = Delivery(
            len(ours.batch.records),
            backoff=self._backoff,
            arrivals=self._arrivals_of(cursor, whole, ours.batch),
            lifetime=self._lifetime,
        )
        if self._troubled is not None:
            delivery.follow(self._troubled)
        flight = Flight(cursor, whole, ours, delivery)
        self._flights.append(flight)
        return flight

    def _next_cursor(self) -> Cursor:
        """Choose in turn, so that neither old events nor new ones wait for the rest."""
        inherited = self._inheritance()
        live_is_due = self._live_due_in() == 0.0
        if inherited and not (live_is_due and self._inherited_last):
            self._inherited_last = True
            return inherited
        self._inherited_last = False
        return self.live

    def _arrivals_of(
        self, cursor: Cursor, whole: Batch, batch: Batch
    ) -> list[tuple[int, float]]:
        """When the events of a batch arrived, by their index in it."""
        if self._lifetime is None:
            return []
        if cursor is not self.live:
            return [(len(batch.records), self._inherited_at[cursor])]
        found: list[tuple[int, float]] = []
        for end, arrived_at in self._arrivals:
            if end > whole.first:
                found.append((min(end, whole.last + 1) - whole.first, arrived_at))
            if end > whole.last:
                break
        return arrivals_within(batch, whole, found)

    def _fly_beside(self, flight: Flight) -> None:
        task = asyncio.create_task(self._fly(flight))
        self._tasks.add(task)
        task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()):
            diagnostics.report("engine", f"a part of bizlog died: {reason_of(error)}")

    async def _fly(self, flight: Flight) -> None:
        delivery = flight.delivery
        delivery.expire(self._clock())
        if delivery.done:
            await asyncio.sleep(0)  # a backlog of others' events leaves others a turn
        while not delivery.done:
            await self._until_turn(flight)
            if self.abandoned:
                return
            if delivery.done:
                break  # it was dropped meanwhile
            flight.is_calling = True
            answer = await self._calls.deliver(flight.part())
            flight.is_calling = False
            if self.abandoned:
                return
            self._learn(flight, answer)
        if not self.abandoned:
            await self._settle(flight)

    async def _until_turn(self, flight: Flight) -> None:
        while not (self.abandoned or flight.delivery.done):
            wait = self._turn_in(flight)
            if wait is not None and wait <= 0:
                return
            self._turn.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._turn.wait()

    def _turn_in(self, flight: Flight) -> float | None:
        if self._breaker.is_open and flight is not self._flights[0]:
            return None  # the oldest one finds out whether the sink is back
        return flight.delivery.due_at - self._clock()

    def _learn(self, flight: Flight, answer: Any) -> None:
        delivery, now = flight.delivery, self._clock()
        if isinstance(answer, StartError):
            # It says nothing about the events: either all of them wait, or none can go.
            if isinstance(answer.failure, PermanentSinkError):
                kind = type(answer.failure).__name__
                delivery.refuse_rest(reason_of(answer.failure), kind)
                return
            judged = judge(0, answer.failure)
            answer = msgspec.structs.replace(judged, kind="later")
        verdict = delivery.answered(answer, now)
        failed = verdict.kind in {"later", "unclear"}
        self._breaker.note(failed=failed)
        self._troubled = delivery if failed else None
        if not self._breaker.is_open:
            self._turn.set()
        delivery.expire(now)
        if not delivery.done and (verdict.kind != "taken" or verdict.retry):
            self._report_failure(flight, verdict, now)

    def _report_failure(self, flight: Flight, verdict: Verdict, now: float) -> None:
        wait = max(0.0, flight.delivery.due_at - now)
        diagnostics.report(
            f"{self.name}.send",
            f"sink {self.name!r} failed ({verdict.reason}); {self.pending} events "
            f"wait, the next attempt comes in {wait:.1f} s",
        )

    async def _settle(self, flight: Flight) -> None:
        self._report_refused(flight.delivery.refused, len(flight.batch.records))
        flight.burial = burial = self._burial_of(flight)
        if burial.letters:
            await asyncio.to_thread(burial.write)
            if self.abandoned:
                return  # another thread did the rest
        self._close(flight, burial)
        self._forget(flight.cursor)
        self._turn.set()
        self._on_progress()

    def _burial_of(self, flight: Flight) -> Burial:
        return Burial(self._dead_letters, flight.letters(self.name))

    def _close(self, flight: Flight, burial: Burial) -> None:
        """Count what became of a batch, all at once."""
        self._count_buried(burial, flight.refused)
        self.delivered += flight.delivery.delivered
        self.not_routed += flight.not_routed
        self.dropped.add("journal_damaged", flight.damaged)
        self.dropped.add("lane_full", len(flight.delivery.dropped))
        flight.cursor.settle(flight.whole)
        self._flights.remove(flight)
        self._tell(flight, burial)

    def _forget(self, cursor: Cursor) -> None:
        self._forget_arrivals()
        if cursor is not self.live and not cursor.pending:
            cursor.save()
            self._inherited.remove(cursor)
            del self._inherited_at[cursor]

    def _forget_arrivals(self) -> None:
        while self._arrivals and self._arrivals[0][0] <= self.settled:
            self._arrivals.popleft()

    def _tell(self, flight: Flight, burial: Burial) -> None:
        receipts = self._receipts
        if receipts is None or not receipts.expected:
            return
        records, dropped = flight.batch.records, flight.delivery.dropped
        gone = {each.index for each in flight.delivery.refused}.union(dropped)
        delivered = [
            record for index, record in enumerate(records) if index not in gone
        ]
        self._tell_buried(burial)
        self._tell_all([records[index] for index in dropped], "dropped", GIVEN_UP)
        self._tell_all(delivered, "delivered")
        self._tell_all(flight.whole.records, "not_routed")

    def _tell_buried(self, burial: Burial) -> None:
        if self._receipts is None or not self._receipts.expected:
            return
        state: State = "dropped" if burial.error else "dead_lettered"
        for letter in burial.letters:
            if letter.event_id is not None:
                self._receipts.settle(letter.event_id, self.name, state, letter.reason)

    def _tell_all(
        self, records: Sequence[Record], state: State, reason: str | None = None
    ) -> None:
        """Tell who waits; the first word about an event counts."""
        if self._receipts is not None and self._receipts.expected:
            for record in records:
                self._receipts.settle(record.event_id, self.name, state, reason)

    def _report_refused(self, refused: Sequence[Refusal], events: int) -> None:
        if refused:
            diagnostics.report(
                f"{self.name}.refused",
                f"sink {self.name!r} refused {len(refused)} of {events} events "
                f"({refused[0].reason}); they go to the dead letters in "
                f"{self._dead_letters.path.parent}",
            )

    def _count_buried(self, burial: Burial, refused: Sequence[Refusal]) -> None:
        if burial.error:
            self._count_lost(len(refused), burial.error)
            return
        self.dead_lettered += len(refused)
        for refusal in refused:
            self.refused.of(refusal.error_type).events += 1

    def _count_lost(self, events: int, error: OSError) -> None:
        self.dropped.add("dead_letters_failed", events)
        diagnostics.report(
            "dead_letters",
            f"{events} events of sink {self.name!r} are lost: dead letters cannot be "
            f"written to {self._dead_letters.path.parent} ({reason_of(error)})",
        )

    # What is given up

    def give_up(self, events: int) -> int:
        """
        Give up the oldest waiting records: other lanes need the room.

        Returns:
            How many; none where a journal's disk gives no answer.
        """
        given_up = self.live.skip(events)
        if given_up:
            self._drop_flights()
        self._forget_arrivals()
        self.batcher.remove(len(given_up), _size(given_up), self._clock())
        lost = self._leave_out(given_up)
        self.dropped.add("lane_full", len(lost))
        self._tell_all(lost, "dropped", GIVEN_UP)
        if lost:
            diagnostics.report(
                f"{self.name}.lane_full",
                f"sink {self.name!r} is too slow for the others: its {len(lost)} "
                "oldest events were given up",
            )
        return len(given_up)

    def _drop_flights(self) -> None:
        """Drop what waits for its next attempt: it is older than all that waits."""
        for flight in self._flights:
            if flight.cursor is self.live and not flight.is_calling:
                flight.delivery.drop_rest()
        self._turn.set()

    def _leave_out(self, records: Sequence[Record]) -> list[Record]:
        """Count what is damaged or another sink's; returns this sink's own."""
        ours = routed(self._route, Batch("", 0, 0, records))
        own = [*ours.batch.records, *ours.astray]
        others = len(records) - ours.damaged - len(own)
        self.dropped.add("journal_damaged", ours.damaged)
        self.not_routed += others
        if others and self._receipts and self._receipts.expected:
            ids = {record.event_id for record in own}
            left = [r for r in records if r.data and r.event_id not in ids]
            self._tell_all(left, "not_routed")
        return own

    def abandon(self, waiting: Sequence[Record], reason: str) -> None:
        """
        End with what is not settled; the deadline has passed.

        What the journal keeps stays there for the next process; all else goes to the
        dead letters. Runs on bizlog's thread, or on the caller's when that is stuck.

        Args:
            waiting: Records that no journal holds.
            reason: Why they were not delivered.
        """
        if not self.abandoned:
            self.abandoned = True
            waiting = [*self._abandon_live(reason), *waiting]
        own = self._leave_out(waiting)
        refused = all_refused(own, reason, "shutdown", attempts=0)
        buried = letters(own, refused, self.name, wall_clock())
        burial = Burial(self._dead_letters, buried)
        burial.write()
        self._count_buried(burial, refused)
        self._tell_buried(burial)

    def _abandon_live(self, reason: str) -> list[Record]:
        """Bury what is under way and not kept; returns what waits and is not kept."""
        kept = self.live.journal.journaled
        for flight in tuple(self._flights):
            is_kept = flight.cursor is not self.live or flight.whole.last < kept
            # One whose letters are being written is settled, kept or not.
            if flight.burial or not is_kept:
                self._bury_flight(flight, reason)
        waiting = self.live.end_at(kept)
        self._arrivals.clear()
        self._save()
        return waiting

    def _bury_flight(self, flight: Flight, reason: str) -> None:
        if flight.burial is None:
            flight.delivery.give_up(reason, "shutdown")
            flight.burial = self._burial_of(flight)
        flight.burial.write()
        self._close(flight, flight.burial)


GIVEN_UP = "given up: the sink is too slow for the others"


def _size(records: Sequence[Record]) -> int:
    return sum([len(record.data) for record in records])
