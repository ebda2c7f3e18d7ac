"""
The pump: takes records from the front queue into the journal and tells the lanes.

Runs on bizlog's loop. It takes all that waits, then lets more gather for 10 ms, so that
a busy caller wakes it at most a hundred times a second; each hand-over of the GIL to
the pump may otherwise cost the 5 ms switch interval. What the memory journal may hold
is bounded by the fastest lane: while that one has room, records flow, and a lane that
stays behind it by more than the bound gives up its oldest. When no lane has room the
records stay in the front queue, whose overflow policy then applies. A journal on disk
has a bound of its own; while the disk refuses to take anything, that of memory holds.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from bizlog import diagnostics
from bizlog._wording import describe_error
from bizlog.delivery.dead_letters import RefusedLetters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bizlog.delivery.dead_letters import DeadLetterFolder
    from bizlog.delivery.journal import Journal
    from bizlog.delivery.keeper import Keeper
    from bizlog.delivery.lane import Lane
    from bizlog.delivery.queue import FrontQueue
    from bizlog.delivery.receipts import Receipts
    from bizlog.sinks import Record

GATHER_SECONDS = 0.010
# How long the queue waits, at most, for lanes that are about to read what came last.
FOLLOW_SECONDS = 0.020
RUN_EVENTS = 5_000
AHEAD_EVENTS = 5_000
RUN_BYTES = 2 * 1024 * 1024

# How often a journal on disk is looked after.
TEND_SECONDS = 1.0

REJECTED_LETTERS = 10_000


class Pump:
    """
    Moves records from the queue through the journal to the lanes.

    Args:
        queue: Where callers put records.
        journal: Where the lanes read them.
        lanes: One for each sink.
        dead_letters: Where refused events are kept.
        max_events: Most records the journal holds in memory ahead of the fastest lane.
        max_bytes: Most bytes it holds in memory ahead of it.
        max_disk: Most bytes a journal on disk holds ahead of it.
        receipts: Who waits for the fate of which event.
        keeper: Looks after what is kept on disk; None without a journal there.
    """

    def __init__(
        self,
        *,
        queue: FrontQueue,
        journal: Journal,
        lanes: Sequence[Lane],
        dead_letters: DeadLetterFolder,
        max_events: int,
        max_bytes: int,
        max_disk: int = 1 << 62,
        receipts: Receipts | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self._queue = queue
        self._journal = journal
        self._max_disk = max_disk
        self._receipts = receipts
        self._keeper = keeper
        self.lanes = lanes
        self._dead_letters = dead_letters
        self._max_events = max_events
        # What waits for the pump anyway need not wait for the fastest lane as well: so
        # many records as keep it busy, those under way included. (Memory: 8 MB less.)
        due = max((lane.batcher.batch_size for lane in lanes), default=0)
        self._ahead = max(AHEAD_EVENTS, 2 * due)
        self._max_bytes = max_bytes
        self._wakeup = asyncio.Event()
        self._progress = asyncio.Event()
        self._burying = asyncio.Lock()
        self._abandoned = False
        self.rejected = RefusedLetters(REJECTED_LETTERS, max_bytes)

    def wake(self) -> None:
        """Look at the queue; on bizlog's loop."""
        self._wakeup.set()

    async def run(self) -> None:
        """Pump until cancelled."""
        tending = asyncio.create_task(self._tend()) if self._keeper else None
        try:
            await self._pump()
        finally:
            if tending is not None:
                tending.cancel()

    async def _tend(self) -> None:
        assert self._keeper is not None
        while not self._abandoned:
            try:
                self._keeper.tend()
            except Exception as error:  # noqa: BLE001  # events flow all the same
                what = "the journal could not be looked after"
                diagnostics.report("journal", f"{what}: {describe_error(error)}")
            self._tell_journaled()  # the disk may be back
            self._wakeup.set()  # there may be room again
            await asyncio.sleep(TEND_SECONDS)

    async def _pump(self) -> None:
        while not self._abandoned:
            self._queue.hurried = False
            self._wakeup.clear()
            self._hasten()
            moved = self._move()
            await self._bury_rejected()
            if moved and self._is_far_ahead():
                await self._let_lanes_follow()
            elif moved >= RUN_EVENTS:
                await asyncio.sleep(0)  # let the lanes have a look
            elif moved:
                await self._gather()
            else:
                await self._rest()

    def _is_far_ahead(self) -> bool:
        if self._keeper is None:
            return False  # then there is no room either
        fastest = min(self.lanes, key=lambda lane: lane.live.pending)
        return fastest.live.pending >= self._ahead and self._keeper.remembers(
            fastest.live.next
        )

    async def _let_lanes_follow(self) -> None:
        # What was appended last is still in memory: a lane that follows reads no disk.
        # For a moment only, because what is in the queue does not outlive the process.
        with suppress(TimeoutError):
            async with asyncio.timeout(FOLLOW_SECONDS):
                while self._is_far_ahead():
                    self._progress.clear()
                    await self._progress.wait()

    def _hasten(self) -> None:
        """Have the lanes send at once what somebody waits for."""
        if self._receipts is not None and self._receipts.hurried:
            self._receipts.hurried = False
            for lane in self.lanes:
                lane.hasten(len(self._queue))

    async def _gather(self) -> None:
        # Not wait_for: on 3.11 it swallows a cancellation that meets a wake-up.
        with suppress(TimeoutError):
            async with asyncio.timeout(GATHER_SECONDS):
                await self._wakeup.wait()

    async def _rest(self) -> None:
        blocked = bool(len(self._queue))
        if not blocked:
            # Clear the flag, then look again: a record offered in between found the
            # flag set and woke nobody.
            self._queue.awake = False
            hurried = self._receipts is not None and self._receipts.hurried
            if len(self._queue) or self.rejected or hurried:
                self._queue.awake = True
                return
        await self._wakeup.wait()

    def _move(self) -> int:
        run = self._queue.take(min(RUN_EVENTS, self._room()), RUN_BYTES)
        if run:
            self._take_in(run)
        if self._receipts is not None:
            self._receipts.tell_dropped()
        self._report_drops()
        return len(run)

    def _take_in(self, run: Sequence[Record]) -> None:
        self._journal.append(run)
        if self._keeper is not None:
            self._keeper.note_taken(run)
        if self._receipts is not None and self._keeper is not None:
            self._receipts.append(run)
            self._tell_journaled()
        size = sum([len(record.data) for record in run])
        for lane in self.lanes:
            lane.notify(len(run), size)
        self._limit_lanes()

    def _tell_journaled(self) -> None:
        if self._receipts is not None and self._journal.durable:
            self._receipts.journal()

    def _room(self) -> int:
        """Say how many records the journal takes before a lane has delivered some."""
        fastest = min(self.lanes, key=lambda lane: lane.live.pending)
        if self._keeper is not None:
            has_room = fastest.batcher.bytes < self._max_disk and self._keeper.has_room
            return RUN_EVENTS if has_room else 0
        if fastest.batcher.bytes >= self._max_bytes:
            return 0
        room = self._max_events - fastest.batcher.events
        return max(0, min(room, self._ahead - fastest.live.pending))

    def _limit_lanes(self) -> None:
        # Measured against the fastest lane: a bound of its own would take from lanes
        # that are no slower than the others.
        most_events, most_bytes = self._max_events, self._max_bytes
        if self._keeper is not None:
            most_events, most_bytes = 1 << 62, self._max_disk
        most_events += min(i.batcher.events for i in self.lanes)
        most_bytes += min(i.batcher.bytes for i in self.lanes)
        for lane in self.lanes:
            excess = lane.batcher.events - most_events
            if excess > 0:
                lane.give_up(excess)
            while lane.batcher.bytes > most_bytes and lane.batcher.events > 1:
                if not lane.give_up(max(1, lane.batcher.events // 10)):
                    break  # the disk gives no answer
        self._release()

    def _release(self) -> None:
        # What is under way is in a lane's own hands: memory need not hold it as well.
        on_disk = self._keeper is not None
        places = [lane.settled if on_disk else lane.live.next for lane in self.lanes]
        self._journal.release(min(places))
        if self._keeper is not None:
            self._keeper.release()

    def on_progress(self) -> None:
        """Learn that a lane settled a batch: there may be room again."""
        self._release()
        self._progress.set()
        if len(self._queue):
            self._wakeup.set()

    def _report_drops(self) -> None:
        lost = self._queue.dropped.snapshot().get("queue_full", 0)
        if lost:
            diagnostics.report(
                "queue_full",
                f"the queue was full: {lost} events dropped so far; raise queue_events "
                "or queue_bytes, or set overflow='block'",
            )

    async def _bury_rejected(self) -> None:
        # The lock makes a flush wait for letters that are being written right now.
        async with self._burying:
            letters = self.rejected.take()
            self._report_no_room()
            if letters:
                try:
                    await asyncio.to_thread(self._dead_letters.write, letters)
                except OSError as error:
                    self._report_lost(len(letters), error)

    def _report_no_room(self) -> None:
        if self.rejected.lost:
            diagnostics.report(
                "rejected",
                f"{self.rejected.lost} refused events so far have no dead letter: they "
                "came faster than the folder takes them; mend what emits them",
            )

    def _report_lost(self, events: int, error: OSError) -> None:
        diagnostics.report(
            "dead_letters",
            f"the dead letters of {events} refused events are lost: "
            f"{self._dead_letters.path.parent} cannot be written "
            f"({describe_error(error)})",
        )

    async def flush(self) -> bool:
        """Settle all that was offered until now; say whether all sinks could flush."""
        if self._queue.closed:
            for lane in self.lanes:
                lane.hurry()
        # Not until the queue is empty: others may go on emitting.
        goal = self._journal.end + len(self._queue)
        while len(self._queue) and self._journal.end < goal:
            if not self._move():
                await asyncio.sleep(0.001)  # no room: wait for the lanes
            elif self._is_far_ahead():
                await self._let_lanes_follow()
        await self._bury_rejected()
        return all(await asyncio.gather(*(lane.flush() for lane in self.lanes)))

    def abandon(self, reason: str) -> None:
        """
        End with everything that is left; the deadline has passed.

        What a journal on disk keeps stays there; all else goes to the dead letters.
        A caller's thread may do it where bizlog's is stuck, and that one again later.
        """
        waiting = self._queue.take(1 << 62)
        if waiting and self._keeper is not None and not self._abandoned:
            self._take_in(waiting)
            waiting = []
        for lane in self.lanes:
            lane.abandon(waiting, reason)
        if self.rejected:
            letters = self.rejected.take()
            try:
                self._dead_letters.write(letters)
            except OSError as error:
                self._report_lost(len(letters), error)
        if self._keeper is not None and not self._abandoned:
            self._keeper.close(min(lane.settled for lane in self.lanes))
        self._abandoned = True

    def leave_to_parent(self) -> None:
        """Let go, in a forked child, of what its parent keeps on disk."""
        if self._keeper is not None:
            self._keeper.leave_to_parent()
