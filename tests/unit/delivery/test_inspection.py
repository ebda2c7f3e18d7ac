"""Looking into a journal folder disturbs nobody."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from bizlog.delivery import inspection
from bizlog.delivery.folder import JournalFolder
from bizlog.delivery.inspection import inspect
from bizlog.delivery.journal import LaneState
from bizlog.delivery.sqlite import SqliteJournal


@pytest.fixture
def path(tmp_path):
    """The folder."""
    return tmp_path / "journal"


@pytest.fixture
def journal(path):
    """A journal whose process lives."""
    journal = JournalFolder(path).create()
    yield journal
    journal.close(remove=True)


def state_of(path):
    """Name every file with its size and time."""
    return {
        file.name: (file.stat().st_size, file.stat().st_mtime_ns)
        for file in path.iterdir()
        if not file.name.endswith("-shm")
    }


def test_a_living_journal_is_seen(journal, path, make_records):
    """State, process, age, size and what is pending for each lane."""
    journal.append(make_records(10))
    journal.append(make_records(10))
    journal.seal("file", LaneState(12))
    journal.seal("http", LaneState(20))
    journal.note("ledger", b'{"sinks":{}}')

    [info] = inspect(path)

    assert (info.journal_id, info.state, info.problem) == (
        journal.journal_id,
        "live",
        None,
    )
    assert info.path == path / f"{journal.journal_id}.db"
    assert (info.start, info.end) == (0, 20)
    assert info.pending == {"file": 8, "http": 0}
    assert info.created_at <= info.oldest_at
    assert info.size > 65_536
    assert info.notes == {"pid": b"%d" % info.pid, "ledger": b'{"sinks":{}}'}


def test_the_oldest_is_of_the_run_that_is_pending(tmp_path, make_records):
    """Age counts from the run with the first record that is not settled."""
    times = iter(range(100, 200))
    with closing(
        SqliteJournal(tmp_path / "j.db", wall_clock=lambda: float(next(times)))
    ) as journal:
        for _ in range(3):
            journal.append(make_records(10))
        journal.seal("file", LaneState(15))

    [info] = inspect(tmp_path)

    assert info.oldest_at == 102.0
    assert info.created_at == 100.0


def test_what_is_settled_has_no_age(journal, path, make_records):
    """With nothing pending nothing is old; a cursor beyond the end is at the end."""
    journal.append(make_records(3))
    journal.seal("file", LaneState(9))

    [info] = inspect(path)

    assert info.oldest_at is None
    assert info.pending == {"file": 0}


def test_a_living_owner_is_not_disturbed(journal, path, make_records):
    """Looking changes no file, keeps no lock, and the owner goes on."""
    journal.append(make_records(3))
    before = state_of(path)

    for _ in range(20):
        inspect(path)

    assert state_of(path) == before
    journal.append(make_records(3))
    assert journal.durable
    assert inspect(path)[0].end == 6


def test_a_file_closed_well_gets_no_log(path, make_records):
    """An orphan without a log is read as it is: nothing is made beside it."""
    path.mkdir()
    with closing(SqliteJournal(path / "j.db", journal_id="j")) as journal:
        journal.append(make_records(3))
        journal.seal("file", LaneState(1))
    before = state_of(path)

    [info] = inspect(path)

    assert (info.state, info.end, info.pending) == ("orphan", 3, {"file": 2})
    assert info.pid is None
    assert state_of(path) == before


def test_a_dead_process_s_log_is_read(path, make_records):
    """What stands in the log only is seen as well."""
    path.mkdir()
    with closing(SqliteJournal(path / "j.db", journal_id="j")) as journal:
        journal.append(make_records(3))
        [info] = inspect(path)

    assert (info.state, info.end, info.pending) == ("orphan", 3, {})


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"not a database" * 99, "file is not a database"), (b"", "is empty")],
)
def test_files_that_cannot_be_read_are_named(path, content, problem):
    """An unfit file is listed with what is wrong, and hides no other."""
    path.mkdir()
    (path / "bad.db").write_bytes(content)
    SqliteJournal(path / "good.db", journal_id="good").close()

    bad, good = inspect(path)

    assert (bad.journal_id, bad.state) == ("bad", "orphan")
    assert problem in bad.problem
    assert (good.journal_id, good.problem) == ("good", None)


def test_what_was_put_aside_is_listed(path):
    """Files in quarantine come last, with the reason why they are there."""
    path.mkdir()
    (path / "bad.db").write_bytes(b"not a database" * 99)
    JournalFolder(path).adopt()
    SqliteJournal(path / "zz.db", journal_id="zz").close()

    first, last = inspect(path)

    assert first.journal_id == "zz"
    assert (last.journal_id, last.state) == ("bad.corrupt", "quarantined")
    assert (last.problem, last.size) == ("corrupt", 14 * 99)


def test_a_file_deleted_meanwhile_is_left_out(path, monkeypatch):
    """Its owner was done with it between the list and the look."""
    path.mkdir()
    (path / "j.db").touch()

    def connect(file, **options):
        (path / "j.db").unlink()
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(inspection, "_connect", connect)

    assert inspect(path) == []


def test_a_folder_that_is_not_there_is_an_error(path):
    """Who asks for a folder by a wrong name learns it."""
    with pytest.raises(FileNotFoundError):
        inspect(path)
