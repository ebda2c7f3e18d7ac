"""A journal in one file: limits, damage, space, and files that are none of ours."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from bizlog.delivery import sqlite
from bizlog.delivery.journal import DAMAGED, JournalError, LaneState
from bizlog.delivery.sqlite import SqliteJournal, UnfitFileError


@pytest.fixture
def path(tmp_path):
    """Where the journal is."""
    return tmp_path / "a journal?.db"


@pytest.fixture
def journal(path):
    """An empty journal that is closed with the test."""
    with closing(SqliteJournal(path)) as journal:
        yield journal


def execute(path, sql, *values):
    """Do something to a file from outside."""
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(sql, values).fetchall()


def read_all(journal, step=1 << 40):
    """Read everything that is left, in steps."""
    found = []
    while piece := journal.read(journal.start + len(found), step, 1 << 40):
        found += piece
    return found


def sizes(path):
    """Say how big a file and its log are."""
    return path.stat().st_size, Path(f"{path}-wal").stat().st_size


def test_what_was_appended_is_there_after_opening_again(path, make_records):
    """Records, positions, seals and notes come back after the process."""
    records = make_records(7)
    with closing(SqliteJournal(path, journal_id="j", start=100)) as journal:
        journal.append(records[:3])
        journal.append(records[3:])
        journal.append([])
        journal.seal("file", LaneState(100, (102, 104)))
        journal.note("ledger", b"{}")
        created = journal.created_at

    with closing(SqliteJournal(path, journal_id="other")) as journal:
        found = journal.journal_id, journal.start, journal.end, journal.created_at
        assert found == ("j", 100, 107, created)
        assert [r.data for r in read_all(journal, 2)] == [r.data for r in records]
        assert journal.lanes() == {"file": LaneState(100, (102, 104))}
        assert journal.notes() == {"ledger": b"{}"}
        assert journal.corrupt == 0


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_nobody_else_may_read_it(tmp_path, umask, make_records):
    """File, log and index are 0600 whatever the umask is."""
    before = os.umask(umask)
    try:
        with closing(SqliteJournal(tmp_path / "j.db")) as journal:
            journal.append(make_records(1))
            modes = {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    finally:
        os.umask(before)

    assert modes == {0o600}


def test_a_link_is_not_followed(tmp_path, path):
    """A link in the journal's place leads nowhere."""
    path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(JournalError):
        SqliteJournal(path)

    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(("sync", "level"), [("normal", 1), ("full", 2)])
def test_sync_is_what_was_asked_for(path, sync, level):
    """`normal` and `full` are SQLite's levels; the log and the pages are set as measured."""
    with closing(SqliteJournal(path, sync=sync)) as journal:
        found = [
            journal._one(f"pragma {name}")
            for name in (
                "synchronous",
                "journal_mode",
                "page_size",
                "auto_vacuum",
                "wal_autocheckpoint",
            )
        ]

    assert found == [level, "wal", 65_536, 2, 250]


def test_a_run_of_every_size_is_read_in_every_step(path, make_records):
    """Chunks, runs and steps of the reader need not fit together."""
    records = make_records(400)
    with closing(SqliteJournal(path)) as journal:
        for begin, end in ((0, 1), (1, 3), (3, 153), (153, 154), (154, 400)):
            journal.append(records[begin:end])
        for step in (1, 7, 100, 1_000):
            found = read_all(journal, step)
            assert [record.data for record in found] == [r.data for r in records]


def test_a_run_is_decoded_once_for_many_small_reads(journal, make_records, monkeypatch):
    """Reading in small steps, by lanes far apart, decodes no run a second time."""
    for _ in range(3):
        journal.append(make_records(300, size=300))
    decoded = []
    unpack = sqlite.unpack
    monkeypatch.setattr(sqlite, "CHUNK_EVENTS", 300)
    monkeypatch.setattr(
        sqlite, "unpack", lambda *args: decoded.append(args[0]) or unpack(*args)
    )

    for step in range(0, 300, 10):
        for lane in (0, 300, 600):
            assert len(journal.read(lane + step, 10, 1 << 20)) == 10

    assert decoded == [300, 300, 300]


def test_a_record_beyond_the_limit_comes_alone(journal, make_record):
    """A record that is larger than asked for comes all the same, and alone."""
    journal.append([make_record(size=5_000), make_record(size=10)])

    assert len(journal.read(0, 10, 100)[0].data) == 5_000
    assert len(journal.read(0, 10, 100)) == 1
    assert journal.read(2, 10, 100) == []


def damage(path, position, records):
    """Damage the run that begins at a position, from outside, behind SQLite's back."""
    ((data,),) = execute(path, "select data from runs where first = ?", position)
    broken = data[:10] + b"\x00" + data[11:]
    execute(path, "update runs set data = ? where first = ?", broken, position)


def test_damage_stays_where_it_is(path, make_records):
    """A damaged record holds its position, is counted once, its siblings are read."""
    records = make_records(90, size=300)
    with closing(SqliteJournal(path)) as journal:
        for begin in (0, 30, 60):
            journal.append(records[begin : begin + 30])
    damage(path, 30, records)

    with closing(SqliteJournal(path)) as journal:
        found = read_all(journal, 25)
        again = read_all(journal)
        corrupt = journal.corrupt

    assert found == again
    struck = [index for index, record in enumerate(found) if record is DAMAGED]
    assert struck == list(range(30, 30 + corrupt))
    assert 1 <= corrupt <= 15
    assert all(found[n].data == records[n].data for n in range(90) if n not in struck)


def test_a_damaged_row_is_never_deleted(path, make_records):
    """What is consumed goes, what is damaged stays for whoever can mend it."""
    with closing(SqliteJournal(path)) as journal:
        for _ in range(4):
            journal.append(make_records(10))
    damage(path, 10, None)

    with closing(SqliteJournal(path)) as journal:
        read_all(journal)
        journal.release(40)
        journal.tidy()
    left = execute(path, "select first from runs")

    assert left == [(10,)]
    with closing(SqliteJournal(path)) as journal:
        assert (journal.start, journal.end) == (40, 40)
        assert journal.read(40, 9, 9) == []


@pytest.mark.parametrize(
    ("gone", "expected"), [(0, [0]), (10, [1]), (20, [2]), (30, [3])]
)
def test_a_row_that_is_gone_leaves_its_positions(path, make_records, gone, expected):
    """Positions behind a missing run are what they were."""
    records = make_records(40)
    with closing(SqliteJournal(path)) as journal:
        for begin in range(0, 40, 10):
            journal.append(records[begin : begin + 10])
        execute(path, "delete from runs where first = ?", gone)
        for step in (3, 10, 100):
            found = read_all(journal, step)
            tens = [found[begin : begin + 10] for begin in range(0, 40, 10)]
            struck = [n for n, ten in enumerate(tens) if ten == [DAMAGED] * 10]
            assert struck == expected
            assert sum(record is DAMAGED for record in found) == 10
        assert journal.corrupt == 10


def damage_page(path, data):
    """Damage the page where some data is: its pointer to the page that follows."""
    at = path.read_bytes().index(data) // 65_536 * 65_536
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff\xff\xff\xff")


def test_a_page_that_is_damaged_takes_only_its_runs(path, make_records):
    """SQLite itself calls the file malformed: what lies on other pages is read."""
    records = make_records(600, size=1_000)
    with closing(SqliteJournal(path)) as journal:
        for begin in range(0, 600, 200):
            journal.append(records[begin : begin + 200])
    damage_page(path, records[270].data)

    with closing(SqliteJournal(path)) as journal:
        found = read_all(journal)

    assert len(found) == 600
    assert [r.data for r in found[:200]] == [r.data for r in records[:200]]
    assert found[200:400] == [DAMAGED] * 200
    assert [r.data for r in found[400:]] == [r.data for r in records[400:]]
    assert journal.corrupt == 200


def test_a_seal_that_is_damaged_begins_anew(path, make_records):
    """A lane whose state cannot be read stands at the start: twice beats never."""
    with closing(SqliteJournal(path, start=5)) as journal:
        journal.seal("file", LaneState(9))
    execute(path, "update lanes set state = x'ff00'")

    with closing(SqliteJournal(path)) as journal:
        assert journal.lanes() == {"file": LaneState(5)}


def test_space_comes_back_when_all_is_drained(path, make_records):
    """A journal that was large is small again, file and log."""
    run = make_records(1_000, size=1_000)
    with closing(SqliteJournal(path)) as journal:
        for _ in range(40):
            journal.append(run)
        large = sum(sizes(path))
        journal.release(journal.end)
        journal.tidy()
        small = sum(sizes(path))
        journal.append(run)
        assert len(read_all(journal)) == 1_000

    assert large > 40_000_000
    assert small < 6_000_000


def test_space_comes_back_little_by_little(path, make_records, monkeypatch):
    """While records are left, some free pages are given back at each look."""
    monkeypatch.setattr(sqlite, "MANY_PAGES", 20)
    run = make_records(1_000, size=1_000)
    with closing(SqliteJournal(path)) as journal:
        for _ in range(20):
            journal.append(run)
        journal.release(19_000)
        before = journal._one("pragma page_count")
        journal.tidy()
        after = journal._one("pragma page_count")

        assert 0 < before - after <= sqlite.SPARE_PAGES
        assert len(journal.read(19_000, 2_000, 1 << 30)) == 1_000


def test_deletions_are_few(journal, make_records, monkeypatch):
    """Small releases wait; thousands of records, or a look, delete what is consumed."""
    monkeypatch.setattr(sqlite, "RELEASE_EVENTS", 20)
    for _ in range(10):
        journal.append(make_records(10))
    starts = []
    for position in range(0, 60, 5):
        journal.release(position)
        starts.append(journal.start)
    journal.tidy()

    assert starts == [0, 0, 0, 0, 20, 20, 20, 20, 40, 40, 40, 40]
    assert journal.start == 50
    journal.release(7)
    journal.tidy()
    assert journal.start == 50


def test_a_long_tail_is_deleted_in_parts(journal, make_records, monkeypatch):
    """However much is released at once, one call deletes a part of it."""
    monkeypatch.setattr(sqlite, "DELETE_EVENTS", 35)
    for _ in range(10):
        journal.append(make_records(10))
    journal.release(100)
    starts = []
    for _ in range(4):
        journal.tidy()
        starts.append(journal.start)

    assert starts == [30, 60, 90, 100]


def test_a_gap_is_no_obstacle(journal, make_records, monkeypatch):
    """What follows a gap longer than such a part is deleted as well."""
    monkeypatch.setattr(sqlite, "DELETE_EVENTS", 35)
    journal.append(make_records(10))
    journal.skip_to(90)
    journal.append(make_records(10))
    journal.release(95)
    journal.tidy()
    assert journal.start == 90

    journal.release(100)
    journal.tidy()

    assert (journal.start, journal.end) == (100, 100)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: p.write_bytes(b"not a database" * 99), "corrupt"),
        (lambda p: p.write_bytes(b""), "empty"),
        (lambda p: execute(p, "create table t (x)"), "foreign"),
        (lambda p: execute(p, "pragma application_id = 7"), "foreign"),
        (lambda p: newer(p), "newer"),
        (lambda p: without_meta(p), "corrupt"),
    ],
)
def test_files_that_are_no_journals_are_told_apart(path, make, reason):
    """Corrupt, foreign, newer and empty files are named, and left as they are."""
    make(path)

    with pytest.raises(UnfitFileError) as caught:
        SqliteJournal(path)

    assert caught.value.reason == reason
    assert path.exists()


def newer(path):
    """Make a journal of a later version of bizlog."""
    SqliteJournal(path).close()
    execute(path, "pragma user_version = 2")


def without_meta(path):
    """Make a journal that does not know its name."""
    SqliteJournal(path).close()
    execute(path, "delete from meta")


def test_a_file_that_cannot_be_made_leaves_nothing(path):
    """Where the tables cannot be made there is no half journal."""

    class Broken(sqlite3.Connection):
        def executescript(self, *args):
            raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(JournalError, match="disk I/O error"):
        SqliteJournal(
            path, connect=lambda *a, **k: sqlite3.connect(*a, **k, factory=Broken)
        )

    assert not path.exists()


def test_errors_of_the_system_are_ours(tmp_path, journal):
    """Nothing of SQLite or the system leaves a journal but as a JournalError."""
    with pytest.raises(JournalError):
        SqliteJournal(tmp_path / "nowhere" / "j.db")
    journal.close()

    for call in (
        journal.tidy,
        journal.notes,
        lambda: journal.append([DAMAGED]),
        lambda: journal.seal("file", LaneState(0)),
        lambda: journal.note("ledger", b"{}"),
    ):
        with pytest.raises(JournalError, match="closed database"):
            call()


def test_a_deletion_that_fails_is_taken_back(path, make_records):
    """After a failed deletion nothing is deleted, and the next one works."""
    disk_is_full = []

    class Full(sqlite3.Connection):
        def executemany(self, *args):
            if disk_is_full:
                raise sqlite3.OperationalError("database or disk is full")
            return super().executemany(*args)

    def connect(*args, **options):
        return sqlite3.connect(*args, factory=Full, **options)

    with closing(SqliteJournal(path, connect=connect)) as journal:
        journal.append(make_records(10))
        journal.release(10)
        disk_is_full.append(1)
        with pytest.raises(JournalError):
            journal.tidy()
        assert len(read_all(journal)) == 10
        disk_is_full.clear()
        journal.tidy()
        assert (journal.start, journal.end) == (10, 10)


def test_a_file_that_is_moved_or_replaced_is_noticed(journal, path, make_records):
    """A deleted file can still be written to; `moved` says that nobody keeps it."""
    journal.append(make_records(1))
    assert not journal.moved

    path.rename(path.with_name("moved.db"))
    assert journal.moved

    path.write_bytes(b"something else")
    assert journal.moved


def test_a_file_that_is_deleted_while_it_is_made_is_noticed(path):
    """It was nobody's from the beginning."""

    class Deleting(sqlite3.Connection):
        def executemany(self, *rest):
            found = super().executemany(*rest)
            shutil.rmtree(path.parent)
            return found

    def connect(*args, **kwargs):
        return sqlite3.connect(*args, **kwargs, factory=Deleting)

    with closing(SqliteJournal(path, connect=connect)) as journal:
        assert journal.moved


def test_a_log_that_is_deleted_is_noticed(journal, path, make_records):
    """Without its log the file has not got the latest runs."""
    journal.append(make_records(1))

    Path(f"{path}-wal").unlink()

    assert journal.moved


def test_runs_are_copied_as_they_are(tmp_path, journal, make_records):
    """Another file takes over the runs between two positions, whole."""
    records = make_records(40)
    for begin in range(0, 40, 10):
        journal.append(records[begin : begin + 10])

    with closing(SqliteJournal(tmp_path / "new.db", start=15)) as new:
        assert new.copy(journal, 15, 30) == 0
        assert (new.start, new.end) == (15, 30)
        found = new.read(15, 99, 1 << 20)

    assert [record.data for record in found] == [r.data for r in records[15:30]]


@pytest.mark.parametrize("gone", [20, 30])
def test_what_cannot_be_copied_is_counted(tmp_path, path, journal, make_records, gone):
    """Runs that are gone are counted by their records, and leave a gap."""
    for _ in range(4):
        journal.append(make_records(10))
    execute(path, f"delete from runs where first = {gone}")

    with closing(SqliteJournal(tmp_path / "new.db")) as new:
        assert new.copy(journal, 0, 40) == 10
        found = read_all(new)

    assert len(found) == 40
    assert found[gone : gone + 10] == [DAMAGED] * 10


def test_a_copy_leaves_out_what_cannot_be_read(tmp_path, path, make_records):
    """Runs before and behind a damaged page are copied."""
    records = make_records(600, size=1_000)
    with closing(SqliteJournal(path)) as journal:
        for begin in range(0, 600, 200):
            journal.append(records[begin : begin + 200])
    damage_page(path, records[270].data)

    with (
        closing(SqliteJournal(path)) as journal,
        closing(SqliteJournal(tmp_path / "new.db")) as new,
    ):
        assert new.copy(journal, 0, 600) == 200
        found = read_all(new)

    assert [r.data for r in found[:200]] == [r.data for r in records[:200]]
    assert [r.data for r in found[400:]] == [r.data for r in records[400:]]


def test_a_copy_ends_where_the_disk_ends(tmp_path, journal, make_records):
    """A file that gives no answer has nothing to copy, and says how much is lost."""
    journal.append(make_records(10))
    journal.close()

    with closing(SqliteJournal(tmp_path / "new.db")) as new:
        assert new.copy(journal, 0, 10) == 10


def test_removing_leaves_nothing(journal, path, make_records):
    """A journal that is done with takes its log and index along."""
    journal.append(make_records(1))

    journal.remove()

    assert list(path.parent.iterdir()) == []


def test_what_a_dead_process_left_is_opened(tmp_path, path, journal, make_records):
    """A file whose log was not written back has all that was appended."""
    journal.append(make_records(5))
    journal.seal("file", LaneState(0, (4,)))
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    shutil.copy(f"{path}-wal", f"{copy}-wal")

    with closing(SqliteJournal(copy)) as found:
        assert found.end == 5
        assert found.lanes() == {"file": LaneState(0, (4,))}
