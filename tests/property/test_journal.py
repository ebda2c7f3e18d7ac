"""Three journals against the simplest model of one: a list that forgets nothing."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from bizlog.delivery import sqlite
from bizlog.delivery.durable import DurableJournal
from bizlog.delivery.journal import JournalError, LaneState, MemoryJournal
from bizlog.delivery.sqlite import SqliteJournal
from bizlog.sinks import Record

LANES = ("file", "http-2")


def make_record(number: int, size: int) -> Record:
    """Make a record with so many bytes to spare."""
    data = (
        b'{"event_id":"id-%d","event_type":"order.placed","event_time":"t","sequence":%d'
        b',"note":"%b"}' % (number, number, b"x" * size)
    )
    return Record(data, f"id-{number}", "order.placed", "t", number)


class Disk:
    """A disk that fails when the n-th call from now on is made."""

    def __init__(self) -> None:
        self.calls_left: int | None = None
        self.works = True

    def call(self) -> None:
        """Count a call; raise what a disk in that state raises."""
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left <= 0:
                self.calls_left, self.works = None, False
        if not self.works:
            raise sqlite3.OperationalError("database or disk is full")

    def connect(self, *args, **options):
        """Open a connection that makes its calls here."""
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, *args):
                disk.call()
                return super().execute(*args)

            def executemany(self, *args):
                disk.call()
                return super().executemany(*args)

            def executescript(self, *args):
                disk.call()
                return super().executescript(*args)

        return sqlite3.connect(*args, factory=Connection, **options)


class Folder:
    """A home of journals: each file in a folder of its own."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.root = Path(tempfile.mkdtemp())
        self.files = 0

    def make(self, journal_id: str | None = None, start: int = 0) -> SqliteJournal:
        """Make a file that is not there yet."""
        self.files += 1
        return self.open(self.root / f"{self.files}.db", journal_id, start)

    def open(
        self, path: Path, journal_id: str | None = None, start: int = 0
    ) -> SqliteJournal:
        """Make or open a file on the disk that may fail."""
        return SqliteJournal(
            path, journal_id=journal_id, start=start, connect=self.disk.connect
        )

    def crash(self, journal: SqliteJournal) -> SqliteJournal:
        """Open what the death of the process would have left of a file."""
        self.files += 1
        path = self.root / f"{self.files}.db"
        shutil.copy(journal.path, path)
        wal = Path(f"{journal.path}-wal")
        if wal.exists():
            shutil.copy(wal, f"{path}-wal")
        journal.close()
        return self.open(path)

    def hold(self) -> None:
        """Nobody else is here."""

    def leave(self, *, damaged: bool) -> None:
        """Nobody else waits for it."""
        assert not damaged


class JournalMachine(RuleBasedStateMachine):
    """Appends, reads, releases and seals; the disk fails, the process dies."""

    journal: MemoryJournal | SqliteJournal | DurableJournal

    def __init__(self) -> None:
        super().__init__()
        self.folder = Folder()
        self.model: list[Record] = []
        self.cursors = dict.fromkeys(LANES, 0)
        self.seals: dict[str, LaneState] = {}
        self.released = 0
        self.patches = [
            mock.patch.object(sqlite, "CHUNK_EVENTS", 5),
            mock.patch.object(sqlite, "RELEASE_EVENTS", 4),
        ]
        for patch in self.patches:
            patch.start()

    @initialize()
    def begin(self) -> None:
        """Each form of the test makes its own kind of journal."""
        self.journal = self.make()

    def make(self):
        """Make an empty journal."""
        raise NotImplementedError

    def accepts(self, call, *args) -> bool:
        """Make a call that a bare file may refuse; say whether it did not."""
        call(*args)
        return True

    def crash(self) -> None:
        """Die and come back, where the journal can."""

    @rule(sizes=st.lists(st.integers(0, 60), max_size=9))
    def append(self, sizes: list[int]) -> None:
        """A run goes to the end as a whole, or not at all."""
        run = [make_record(len(self.model) + i, size) for i, size in enumerate(sizes)]
        if self.accepts(self.journal.append, run):
            self.model += run

    @rule(
        lane=st.sampled_from(LANES),
        events=st.integers(1, 8),
        size=st.integers(1, 900),
    )
    def read(self, lane: str, events: int, size: int) -> None:
        """Reading yields the longest piece within both limits, never less than one."""
        position = self.cursors[lane]
        found = self.read_with_patience(position, events, size)

        expected: list[Record] = []
        for record in self.model[position : position + events]:
            if expected and sum(len(r.data) for r in [*expected, record]) > size:
                break
            expected.append(record)
        assert found == expected[: len(found)]
        assert bool(found) == bool(expected)
        self.cursors[lane] += len(found)

    def read_with_patience(self, *args: int) -> Sequence[Record]:
        """Read; a disk that fails is made to work first."""
        self.folder.disk.works, self.folder.disk.calls_left = True, None
        return self.journal.read(*args)

    @rule(lane=st.sampled_from(LANES))
    def read_all(self, lane: str) -> None:
        """Everything before a cursor can be read, piece by piece, without a gap."""
        position = self.cursors[lane]
        found: list[Record] = []
        while piece := self.read_with_patience(position + len(found), 1 << 40, 1 << 40):
            found += piece
        assert found == self.model[position:]
        self.cursors[lane] += len(found) // 2

    @rule()
    def release(self) -> None:
        """What every cursor has passed may be forgotten."""
        self.released = min(self.cursors.values())
        self.accepts(self.journal.release, self.released)

    @rule(lane=st.sampled_from(LANES), batches=st.lists(st.integers(1, 5), max_size=3))
    def seal(self, lane: str, batches: list[int]) -> None:
        """The last seal that was kept is the one that counts."""
        settled = self.cursors[lane]
        ends = [settled + sum(batches[: i + 1]) - 1 for i in range(len(batches))]
        state = LaneState(settled, tuple(ends))
        if self.accepts(self.journal.seal, lane, state):
            self.seals[lane] = state

    @rule()
    def die(self) -> None:
        """After the death of the process what is needed is there."""
        self.crash()
        self.read_all(min(LANES, key=lambda lane: self.cursors[lane]))

    @rule(calls=st.integers(1, 12))
    def fail(self, calls: int) -> None:
        """The disk fails in the middle of whatever comes."""
        self.folder.disk.calls_left = calls

    @precondition(lambda self: not self.folder.disk.works)
    @rule()
    def mend(self) -> None:
        """The disk works again."""
        self.folder.disk.works = True

    @invariant()
    def positions_are_never_used_twice(self) -> None:
        """`end` counts all that was ever appended."""
        if hasattr(self, "journal"):
            assert self.journal.end == len(self.model)
            assert self.journal.start <= self.released

    @invariant()
    def seals_are_kept(self) -> None:
        """Each lane is found where it was last sealed."""
        if hasattr(self, "journal") and self.folder.disk.works:
            with mock.patch.object(self.folder.disk, "calls_left", None):
                assert self.journal.lanes() == self.seals

    def teardown(self) -> None:
        """Leave nothing behind."""
        for patch in self.patches:
            patch.stop()
        self.folder.disk.works, self.folder.disk.calls_left = True, None
        if hasattr(self, "journal"):
            self.journal.close()
        shutil.rmtree(self.folder.root)


class MemoryMachine(JournalMachine):
    """The journal in memory: no disk, and nothing comes back."""

    def make(self):
        return MemoryJournal()


class SqliteMachine(JournalMachine):
    """A file: says when something was not kept."""

    def make(self):
        return self.folder.make()

    def accepts(self, call, *args) -> bool:
        try:
            call(*args)
        except JournalError:
            assert not self.folder.disk.works
            return False
        return True

    def crash(self) -> None:
        self.folder.disk.works, self.folder.disk.calls_left = True, None
        self.journal = self.folder.crash(self.journal)

    @rule()
    def tidy(self) -> None:
        """Giving space back takes nothing that is needed."""
        self.accepts(self.journal.tidy)


class DurableMachine(JournalMachine):
    """A file and memory: never raises; after a death, what was `journaled` is there."""

    def make(self):
        self.now = 0.0
        return self.wrap(None)

    def wrap(self, disk: SqliteJournal | None) -> DurableJournal:
        """Make the journal with a small window, on a clock of ours."""
        return DurableJournal(
            self.folder, disk=disk, clock=lambda: self.now, window_bytes=1_000
        )

    @rule(seconds=st.sampled_from((0.1, 0.5, 1.0)))
    def pass_time(self, seconds: float) -> None:
        """Time passes; the pump looks after the journal."""
        self.now += seconds
        self.journal.maintain(self.now)

    def crash(self) -> None:
        disk = self.journal._disk
        if disk is None:
            return
        journaled, durable = self.journal.journaled, self.journal.durable
        self.folder.disk.works, self.folder.disk.calls_left = True, None
        found = self.folder.crash(disk)
        if durable:
            assert found.end == len(self.model)
            assert found.lanes() == self.seals
        assert found.end >= journaled
        self.journal = self.wrap(found)
        del self.model[found.end :]
        self.seals = found.lanes()
        for lane, cursor in self.cursors.items():
            self.cursors[lane] = min(cursor, found.end)
        self.released = min(self.released, found.end)

    @invariant()
    def what_is_not_on_disk_is_in_memory(self) -> None:
        """A durable journal has nothing in memory only, another one counts it."""
        if hasattr(self, "journal"):
            journal = self.journal
            assert journal.lost == journal.corrupt == 0
            if (
                journal.durable and journal._disk is not None
            ):  # made by what comes first
                assert (journal.memory_events, journal.memory_bytes) == (0, 0)
                assert journal.journaled == journal.end == journal._disk.end
                if self.folder.disk.works:
                    with mock.patch.object(self.folder.disk, "calls_left", None):
                        assert journal._disk.lanes() == self.seals


STEPS = settings(max_examples=30, deadline=None, stateful_step_count=50)
TestMemory = MemoryMachine.TestCase
TestMemory.settings = STEPS
TestSqlite = SqliteMachine.TestCase
TestSqlite.settings = STEPS
TestDurable = DurableMachine.TestCase
TestDurable.settings = STEPS
