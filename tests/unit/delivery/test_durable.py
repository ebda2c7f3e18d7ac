"""Disks that fail, fill, vanish and come back, under a journal that feels nothing."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from contextlib import closing

import pytest

from bizlog import diagnostics
from bizlog.delivery import sqlite
from bizlog.delivery.durable import PATIENCE_SECONDS, DurableJournal
from bizlog.delivery.journal import DAMAGED, JournalError, LaneState
from bizlog.delivery.sqlite import SqliteJournal


class Home:
    """A folder that can be locked by others and whose disk can refuse."""

    def __init__(self, folder):
        self.path = folder / "journal" / "j.db"
        self.error = None
        self.is_ours = True
        self.left = []

    def refuse(self, text):
        """From now on every call into the disk fails so."""
        self.error = sqlite3.OperationalError(text)

    def mend(self):
        """The disk works again."""
        self.error = None

    def connect(self, *args, **options):
        home = self

        class Connection(sqlite3.Connection):
            def execute(self, *args):
                if home.error:
                    raise home.error
                return super().execute(*args)

        return sqlite3.connect(*args, factory=Connection, **options)

    def make(self, journal_id, start):
        if self.error:
            raise JournalError("no place")
        self.path.parent.mkdir(exist_ok=True)
        if self.path.exists():
            for suffix in ("-wal", ""):
                self.path.with_name(f"j.db{suffix}").rename(
                    self.path.with_name(f"aside.db{suffix}")
                )
            self.path.with_name("j.db-shm").unlink()
        return self.open(journal_id=journal_id, start=start)

    def open(self, **options):
        return SqliteJournal(self.path, connect=self.connect, **options)

    def hold(self):
        if not self.is_ours:
            raise JournalError("another process has it")

    def leave(self, *, damaged):
        self.left.append(damaged)


@pytest.fixture
def home(tmp_path):
    """Where the file is."""
    return Home(tmp_path)


@pytest.fixture
def journal(home, clock):
    """A journal with a window of 3,000 bytes."""
    journal = DurableJournal(home, clock=clock, window_bytes=3_000)
    yield journal
    home.mend()
    journal.close()


@pytest.fixture
def said(monkeypatch):
    """What was reported; the rate limit starts anew."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    diagnostics.logger.addHandler(handler)
    monkeypatch.setattr(diagnostics, "_last", {})
    yield lines
    diagnostics.logger.removeHandler(handler)


def on_disk(home):
    """Read what another process would find."""
    with closing(SqliteJournal(home.path)) as found:
        return found.read(found.start, 1 << 40, 1 << 40)


def data(records):
    """Compare records by what they say."""
    return [record.data for record in records]


def test_what_is_appended_is_on_disk(journal, home, make_records):
    """A disk that works has everything at once, and memory alone has nothing."""
    records = make_records(10, size=100)

    journal.append(records[:4])
    journal.append(records[4:])

    assert data(on_disk(home)) == data(records)
    assert (journal.durable, journal.fallbacks, journal.lost) == (True, 0, 0)
    assert (journal.journaled, journal.end) == (10, 10)
    assert (journal.memory_events, journal.memory_bytes) == (0, 0)


def test_lanes_that_keep_up_read_no_disk(journal, home, make_records):
    """What came last is read from memory; what is older from the disk."""
    records = make_records(100, size=100)
    for begin in range(0, 100, 10):
        journal.append(records[begin : begin + 10])
    older = journal.read(0, 50, 1 << 20)
    home.refuse("disk I/O error")

    assert data(older) == data(records[:50])
    assert data(journal.read(80, 50, 1 << 20)) == data(records[80:])
    assert journal._window.size <= 3_000


@pytest.mark.parametrize(
    "text",
    [
        "database or disk is full",
        "disk I/O error",
        "attempt to write a readonly database",
    ],
)
def test_a_disk_that_refuses_is_replaced_by_memory(
    journal, home, clock, said, make_records, text
):
    """Nothing raises, nothing is lost, it is counted, said, and over when the disk works."""
    records = make_records(60, size=100)
    journal.append(records[:10])
    home.refuse(text)
    for begin in range(10, 50, 10):
        journal.append(records[begin : begin + 10])
        journal.seal("file", LaneState(begin))
        journal.note("ledger", b"%d" % begin)
        journal.maintain(clock.now)

    assert (journal.durable, journal.fallbacks) == (False, 1)
    assert (journal.journaled, journal.end) == (10, 50)
    assert (journal.memory_events, journal.memory_bytes) == (40, 4_000)
    assert data(journal.read(10, 99, 1 << 20)) == data(records[10:50])
    assert len(said) == 1
    assert text in said[0]

    home.mend()
    clock.now = 1.0
    journal.append(records[50:])

    assert (journal.durable, journal.fallbacks, journal.lost) == (True, 1, 0)
    assert (journal.memory_events, journal.memory_bytes) == (0, 0)
    assert data(on_disk(home)) == data(records)
    with closing(SqliteJournal(home.path)) as found:
        assert found.lanes() == {"file": LaneState(40)}
        assert found.notes() == {"ledger": b"40"}


def test_a_disk_is_tried_once_a_second(journal, home, clock, make_record):
    """Between two tries a disk that fails costs nothing."""
    journal.append([make_record()])
    tries = []
    append = journal._disk.append
    journal._disk.append = lambda run: tries.append(clock.now) or append(run)
    home.refuse("disk I/O error")

    for tenths in range(31):
        clock.now = tenths / 10
        journal.append([make_record()])
        journal.maintain(clock.now)

    assert tries == [0.0, 1.0, 2.0, 3.0]


def test_a_journal_begins_in_memory_where_it_must(home, clock, make_records):
    """Without a disk at the start all is in memory, until there is one."""
    home.refuse("unable to open database file")
    journal = DurableJournal(home, clock=clock, journal_id="j")
    records = make_records(5, size=100)
    journal.append(records)
    journal.seal("file", LaneState(2))
    journal.release(2)

    assert (journal.durable, journal.journaled, journal.end) == (False, 2, 5)
    assert (journal.memory_events, journal.memory_bytes) == (5, 500)
    assert journal.lanes() == {"file": LaneState(2)}
    home.mend()
    clock.now = 1.0
    journal.maintain(clock.now)

    assert journal.durable
    assert data(on_disk(home)) == data(records[2:])
    assert data(journal.read(2, 9, 1 << 20)) == data(records[2:])
    journal.close()
    assert home.left == [False]


def test_what_was_delivered_meanwhile_is_not_written(
    journal, home, clock, make_records
):
    """Records that all lanes are done with need no disk when it comes back."""
    records = make_records(50, size=100)
    journal.append(records[:10])
    home.refuse("disk I/O error")
    for begin in range(10, 50, 10):
        journal.append(records[begin : begin + 10])
    journal.release(40)
    assert journal.memory_events == 10
    home.mend()
    clock.now = 1.0
    journal.maintain(clock.now)

    assert journal.durable
    assert data(on_disk(home)) == data(records[40:])
    assert data(journal.read(40, 99, 1 << 20)) == data(records[40:])


def test_a_file_that_is_full_of_nothing_makes_room(journal, home, clock, make_records):
    """Where nothing on it is needed, a file that cannot be written is made anew."""
    journal.append(make_records(10))
    journal.release(10)
    journal._disk.append = lambda run: raise_full()
    last = make_records(3)
    journal.append(last)
    clock.now = 1.0
    journal.maintain(clock.now)

    assert journal.durable
    assert data(on_disk(home)) == data(last)


def raise_full():
    """Fail like a full disk."""
    raise JournalError("database or disk is full")


@pytest.mark.parametrize("wait", [0.25, 1.0])
def test_a_folder_that_is_deleted_is_made_again(
    journal, home, clock, make_records, wait
):
    """What was in the deleted file is copied from its open descriptor: 0 lost."""
    records = make_records(200, size=100)
    for begin in range(0, 190, 10):
        journal.append(records[begin : begin + 10])
    journal.seal("file", LaneState(20))
    journal.release(20)
    shutil.rmtree(home.path.parent)
    clock.now = wait
    journal.append(records[190:])

    assert (journal.durable, journal.fallbacks, journal.lost) == (True, 1, 0)
    assert data(on_disk(home)) == data(records[20:])
    assert data(journal.read(20, 999, 1 << 20)) == data(records[20:])
    with closing(SqliteJournal(home.path)) as found:
        assert found.journal_id == journal.journal_id
        assert (found.start, found.end) == (20, 200)
        assert found.lanes() == {"file": LaneState(20)}


def test_a_folder_that_cannot_be_made_again_is_waited_for(
    journal, home, clock, make_records
):
    """Until then the deleted file is still read, and nothing more is written to it."""
    records = make_records(100, size=100)
    for begin in range(0, 90, 10):
        journal.append(records[begin : begin + 10])
    shutil.rmtree(home.path.parent)
    home.path.parent.write_text("a file in its place")
    clock.now = 1.0
    journal.append(records[90:])

    assert (journal.durable, journal.journaled, journal.fallbacks) == (False, 0, 1)
    assert journal.memory_events == 10
    assert journal._disk.end == 90
    assert data(journal.read(0, 999, 1 << 20)) + data(
        journal.read(90, 999, 1 << 20)
    ) == data(records)

    home.path.parent.unlink()
    clock.now = 2.0
    journal.maintain(clock.now)
    assert (journal.durable, journal.lost) == (True, 0)
    assert data(on_disk(home)) == data(records)


def test_a_renewal_that_fails_leaves_the_old_file_readable(
    journal, home, clock, make_records
):
    """A new file that cannot be filled is taken away again, and tried again."""
    records = make_records(100, size=100)
    for begin in range(0, 100, 10):
        journal.append(records[begin : begin + 10])
    shutil.rmtree(home.path.parent)
    make = home.make

    def make_small(journal_id, start):
        new = make(journal_id, start)
        new.append = lambda run: raise_full()
        return new

    home.make = make_small
    clock.now = 1.0
    journal.maintain(clock.now)
    assert not journal.durable
    assert list(home.path.parent.iterdir()) == []
    assert len(journal.read(0, 999, 1 << 20)) + len(journal.read(70, 999, 1 << 20)) > 99

    home.make = make
    clock.now = 2.0
    journal.maintain(clock.now)
    assert data(on_disk(home)) == data(records)


def test_a_corrupt_file_is_replaced_with_what_can_be_read(
    journal, home, clock, make_records
):
    """SQLite calls the file malformed: what it still gives moves to a new one."""
    records = make_records(100, size=100)
    for begin in range(0, 90, 10):
        journal.append(records[begin : begin + 10])
    malformed = sqlite3.DatabaseError("database disk image is malformed")
    malformed.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    home.error = malformed
    journal.append(records[90:])
    assert not journal.durable
    home.mend()
    clock.now = 1.0
    journal.maintain(clock.now)

    assert (journal.durable, journal.lost) == (True, 0)
    assert data(on_disk(home)) == data(records)
    assert home.path.with_name("aside.db").exists()


def test_records_that_are_nowhere_any_more_are_counted(
    journal, home, clock, make_records
):
    """What the deleted file cannot give back is lost, counted, and holds its positions."""
    records = make_records(100, size=100)
    for begin in range(0, 100, 10):
        journal.append(records[begin : begin + 10])
    journal._disk._connection.execute("delete from runs where first in (20, 30)")
    shutil.rmtree(home.path.parent)
    clock.now = 1.0
    journal.maintain(clock.now)

    assert (journal.durable, journal.lost) == (True, 20)
    found = journal.read(0, 70, 1 << 20)
    assert found[20:40] == [DAMAGED] * 20
    assert data(found[40:]) == data(records[40:70])
    assert journal.corrupt == 20


def test_a_place_that_another_process_has_is_left_alone(
    journal, home, clock, make_records
):
    """Nothing is written to a file that another process has locked meanwhile."""
    records = make_records(20)
    journal.append(records[:10])
    home.is_ours = False
    clock.now = 1.0
    journal.append(records[10:])
    assert not journal.durable
    assert journal._disk.end == 10

    home.is_ours = True
    clock.now = 2.0
    journal.maintain(clock.now)
    assert data(on_disk(home)) == data(records)


def test_a_disk_that_gives_no_answer_is_waited_for(
    journal, home, clock, said, make_records
):
    """Reading from a dead disk yields nothing, then the rest of the file is given up."""
    records = make_records(100, size=100)
    for begin in range(0, 100, 10):
        journal.append(records[begin : begin + 10])
    home.refuse("disk I/O error")
    assert journal.read(0, 10, 1 << 20) == []
    clock.now = PATIENCE_SECONDS - 1
    assert journal.read(0, 10, 1 << 20) == []
    assert journal.lost == 0
    clock.now = PATIENCE_SECONDS
    assert journal.read(0, 10, 1 << 20) == [DAMAGED] * 10
    assert journal.lost == 10
    assert "cannot be read" in said[0]
    home.mend()
    assert data(journal.read(10, 10, 1 << 20)) == data(records[10:20])

    journal.close(remove=True)

    assert home.left == [True]  # somebody may still read it, with better tools
    assert home.path.exists()


def test_space_comes_back_while_the_journal_lives(journal, home, clock, make_records):
    """The pump's look after the journal deletes what is consumed."""
    journal.append(make_records(10))
    journal.release(10)

    clock.now = 1.0
    journal.maintain(clock.now)

    assert on_disk(home) == []
    assert journal.start == journal.end == 10


@pytest.mark.parametrize("remove", [True, False])
def test_closing_takes_the_file_along_where_it_is_done_with(
    home, clock, make_records, remove
):
    """The file stays for the next process, unless all lanes are done with it."""
    journal = DurableJournal(home, clock=clock)
    journal.append(make_records(3))

    journal.close(remove=remove)

    assert home.path.exists() is not remove
    assert home.left == [False]


def test_closing_tries_the_disk_once_more(home, clock, make_records):
    """What is in memory only is written with the last call, if the disk works now."""
    journal = DurableJournal(home, clock=clock)
    home.refuse("database or disk is full")
    records = make_records(3)
    journal.append(records)
    home.mend()

    journal.close()

    assert data(on_disk(home)) == data(records)


def test_a_dead_process_s_file_goes_on(home, clock, make_records):
    """An adopted file has its name, positions and seals, and is read from the disk."""
    records = make_records(30, size=100)
    with closing(home.make("dead", 100)) as dead:
        dead.append(records)
        dead.seal("file", LaneState(110, (119,)))

    journal = DurableJournal(home, disk=home.open(), clock=clock)

    assert (journal.journal_id, journal.start, journal.end) == ("dead", 100, 130)
    assert journal.lanes() == {"file": LaneState(110, (119,))}
    assert (journal.journaled, journal.memory_events) == (130, 0)
    assert data(journal.read(110, 99, 1 << 20)) == data(records[10:])
    journal.release(130)
    journal.close(remove=True)
    assert not home.path.exists()


def test_a_forked_child_touches_nothing(journal, home, clock, make_records):
    """After `forsake` no call reaches the file, and closing leaves it as it is."""
    records = make_records(20, size=100)
    journal.append(records[:10])

    journal.forsake()
    journal.append(records[10:])
    journal.seal("file", LaneState(10))
    clock.now = 99.0
    journal.maintain(clock.now)
    journal.close()

    assert data(on_disk(home)) == data(records[:10])
    assert not journal.durable
    sqlite._forsaken.pop().close()


def test_a_large_record_goes_through_the_window(journal, home, make_record):
    """A record larger than the window is read from the disk."""
    journal.append([make_record(size=9_000)])
    journal.append([make_record(size=100)])

    assert journal._window.size <= 3_000
    assert [len(r.data) for r in journal.read(0, 9, 1 << 20)] == [9_000, 100]
