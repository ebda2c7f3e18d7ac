"""
Deliver what is pending in the journals of dead processes, one file after the other.

A file is owned while it is drained, exactly as a service owns it; what is settled is
kept in it now and then, so a drain that ends in the middle is taken up there, by the
next drain or by a service. It is removed when every sink that it knows is served. A
file with damaged records is put aside instead.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import TYPE_CHECKING

from bizlog.cli.conveyor import Conveyor, stalled
from bizlog.cli.interrupt import Interruption
from bizlog.cli.places import DEAD_LETTERS, configured_folder
from bizlog.cli.progress import Progress
from bizlog.cli.resume import fingerprint
from bizlog.cli.tables import counted
from bizlog.delivery.dead_letters import DeadLetterFolder
from bizlog.delivery.journal import JournalError, LaneState
from bizlog.ledger import Ledger, SinkLedger, merge
from bizlog.stamps import next_id

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bizlog.delivery.inspection import JournalInfo
    from bizlog.delivery.sqlite import SqliteJournal
    from bizlog.sinks import Record

RUN_EVENTS = 2_000
RUN_BYTES = 2 * 1024 * 1024
INTERRUPTED = 130


def most_pending(journal: JournalInfo) -> int:
    """Say how many events of a journal some sink lacks."""
    return max(journal.pending.values(), default=journal.end - journal.start)


class Drain:
    """
    Drains journals into one sink.

    Args:
        folder: The journal folder.
        sink: URL of the sink.
        lane: Drain what the sink of this name lacks; None for what any lacks.
        dead_letters: Where refused events are kept; None takes the setting.
    """

    def __init__(
        self, folder: Path, *, sink: str, lane: str | None, dead_letters: Path | None
    ) -> None:
        self._folder = folder
        self._sink = sink
        self._lane = lane
        self._letters = DeadLetterFolder(
            dead_letters or configured_folder(DEAD_LETTERS), next_id()
        )
        self._interruption = Interruption()
        self._ledgers: list[SinkLedger] = []
        self._name = ""
        self._fed = 0
        self._whole = 0
        self._complaints: list[str] = []

    def run(self, orphans: Sequence[JournalInfo]) -> int:
        """Drain them; print the ledger, and give the exit code."""
        self._whole = sum(map(most_pending, orphans))
        removed = 0
        with self._interruption.caught(), Progress("drain") as progress:
            for orphan in orphans:
                if not self._interruption.asked:
                    removed += self._drain(orphan, progress)
        self._print(removed, len(orphans))
        if self._interruption.asked:
            return INTERRUPTED
        return 1 if self._complaints else 0

    def _drain(self, orphan: JournalInfo, progress: Progress) -> bool:
        """Drain one file; say whether it is gone."""
        from bizlog.delivery import locks  # noqa: PLC0415  # as below

        try:
            lock = locks.take(orphan.path.with_suffix(".lock"))
            if lock is None:
                self._complain(orphan, "another process has taken it over meanwhile")
                return False
            try:
                return self._drain_owned(orphan, progress)
            finally:
                lock.drop(unlink=not orphan.path.exists())
        except JournalError as error:
            self._complain(orphan, str(error))
            return False

    def _complain(self, orphan: JournalInfo, why: str) -> None:
        self._complaints.append(f"{orphan.path}: not drained: {why}")

    def _drain_owned(self, orphan: JournalInfo, progress: Progress) -> bool:
        from bizlog.delivery.sqlite import SqliteJournal  # noqa: PLC0415  # loads sqlite3

        disk = SqliteJournal(orphan.path)
        try:
            start = self._start_of(disk)
            if start is None:
                known = ", ".join(disk.lanes()) or "none"
                self._complain(orphan, f"it knows no sink {self._lane!r}, only {known}")
                return False
            drained = asyncio.run(self._send(disk, start, progress))
            if not drained or _waits(disk):
                return False
            if disk.corrupt:
                self._put_aside(orphan, disk)
                return False
            disk.remove()
            return True
        finally:
            disk.close()

    def _start_of(self, disk: SqliteJournal) -> int | None:
        lanes = disk.lanes()
        if self._lane is not None:
            found = lanes.get(self._lane)
            return None if found is None else found.settled
        return min((state.settled for state in lanes.values()), default=disk.start)

    async def _send(self, disk: SqliteJournal, start: int, progress: Progress) -> bool:
        conveyor = Conveyor(
            self._sink,
            # Not the journal's own name: what is damaged is left out, so the same
            # positions may stand for other events than in a batch of the service.
            journal_id=fingerprint(disk.journal_id, self._lane, start),
            dead_letters=self._letters,
            interruption=self._interruption,
        )
        cursor = _Cursor(start)
        async with conveyor:
            while cursor.read < disk.end and not conveyor.over:
                run = disk.read(cursor.read, RUN_EVENTS, RUN_BYTES)
                if not run:
                    raise JournalError("the disk gives no answer")
                await conveyor.feed([record for record in run if record.data])
                cursor.note(run)
                self._fed += len(run)
                self._seal(disk, cursor.settled(conveyor.settled))
                progress.update(self._fed, self._fraction)
            done = await conveyor.finish() and not conveyor.over
        self._seal(disk, disk.end if done else cursor.settled(conveyor.settled))
        self._note(disk, conveyor, done=done)
        return done

    def _fraction(self) -> float:
        return min(1.0, self._fed / max(self._whole, 1))

    def _seal(self, disk: SqliteJournal, settled: int) -> None:
        """Keep what is settled, so that nobody sends it again."""
        for name, state in disk.lanes().items():
            if self._lane in {None, name} and state.settled < settled:
                disk.seal(name, LaneState(settled))
        lanes = [state.settled for state in disk.lanes().values()]
        disk.release(min(lanes, default=settled))

    def _note(self, disk: SqliteJournal, conveyor: Conveyor, *, done: bool) -> None:
        [(self._name, sink)] = conveyor.ledger.sinks.items()
        self._ledgers.append(sink)
        if conveyor.stalled:
            self._complaints.append(f"{disk.path}: not drained: {stalled()}")
        elif not done and not self._interruption.asked:
            self._complaints.append(f"{disk.path}: not drained: the sink cannot flush")

    def _put_aside(self, orphan: JournalInfo, disk: SqliteJournal) -> None:
        from bizlog.delivery.folder import JournalFolder  # noqa: PLC0415  # as above

        damaged = counted(disk.corrupt, "event")
        disk.close()
        JournalFolder(self._folder).quarantine(orphan.path, "damaged")
        self._complaints.append(
            f"{orphan.path}: {damaged} damaged and cannot be read; all others were "
            "delivered, and the file was put aside in quarantine"
        )

    def _print(self, removed: int, orphans: int) -> None:
        sink = _total(self._ledgers)
        if self._ledgers:
            print(Ledger({self._name: sink}))
        print(f"{removed:,} of {counted(orphans, 'orphan')} drained and removed")
        if sink.dead_lettered:
            refused = counted(sink.dead_lettered, "event")
            self._complaints.append(
                f"{refused} refused: they are in {self._letters.path}"
            )
        if self._complaints:
            print(*self._complaints, sep="\n", file=sys.stderr)


class _Cursor:
    """
    Which position of the file is settled, when so many of its sound records are.

    Args:
        start: Position of the first record.

    Attributes:
        read: Position behind what was read.
    """

    def __init__(self, start: int) -> None:
        self.read = start
        self._settled = start
        self._fed = 0
        self._marks: deque[tuple[int, int]] = deque()

    def note(self, run: Sequence[Record]) -> None:
        """Learn what was read, and fed where it is sound."""
        self.read += len(run)
        self._fed += sum(1 for record in run if record.data)
        self._marks.append((self._fed, self.read))

    def settled(self, records: int) -> int:
        """Say up to which position all is settled, after so many records."""
        while self._marks and self._marks[0][0] <= records:
            _, self._settled = self._marks.popleft()
        return self._settled


def _waits(disk: SqliteJournal) -> bool:
    """Whether a sink still lacks something."""
    return any(state.settled < disk.end for state in disk.lanes().values())


def _total(ledgers: Sequence[SinkLedger]) -> SinkLedger:
    return SinkLedger(
        offered=sum(ledger.offered for ledger in ledgers),
        delivered=sum(ledger.delivered for ledger in ledgers),
        rejected=sum(ledger.rejected for ledger in ledgers),
        dropped=merge(*(ledger.dropped for ledger in ledgers)),
        dead_lettered=sum(ledger.dead_lettered for ledger in ledgers),
        pending=sum(ledger.pending for ledger in ledgers),
    )
