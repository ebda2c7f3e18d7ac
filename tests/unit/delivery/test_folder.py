"""Whose a journal is, and what becomes of those that nobody owns."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from contextlib import closing

import pytest

from bizlog.delivery import locks, mounts, sqlite
from bizlog.delivery.folder import JournalFolder, inspect
from bizlog.delivery.journal import LaneState
from bizlog.delivery.sqlite import SqliteJournal
from bizlog.exceptions import ConfigurationError


@pytest.fixture
def path(tmp_path):
    """A folder that does not exist yet."""
    return tmp_path / "deep" / "journal"


@pytest.fixture
def folder(path, clock):
    """The folder as this process sees it."""
    return JournalFolder(path, clock=clock)


@pytest.fixture
def orphan(path, make_records):
    """Leave a journal behind as a process that dies: 10 records, 4 settled."""

    def leave(name="dead", events=10, settled=4):
        path.mkdir(parents=True, exist_ok=True)
        with closing(SqliteJournal(path / f"{name}.db", journal_id=name)) as journal:
            if events:
                journal.append(make_records(events))
            journal.seal("file", LaneState(settled))
            journal.note("pid", b"4711")
        return path / f"{name}.db"

    return leave


def names(path):
    """List what is in a folder."""
    return sorted(file.name for file in path.iterdir())


def execute(path, sql):
    """Do something to a file from outside."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(sql)


def test_a_journal_is_made_with_its_lock(folder, path, make_records):
    """Folder 0700; file, log, index and lock 0600 and gone when all is done."""
    journal = folder.create()
    journal.append(make_records(1))

    assert journal.durable
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o600}
    name = journal.journal_id
    assert names(path) == [
        f"{name}.db",
        f"{name}.db-shm",
        f"{name}.db-wal",
        f"{name}.lock",
    ]
    journal.close(remove=True)
    assert names(path) == []


def test_a_closed_journal_can_be_adopted(folder, path, make_records):
    """What is closed with records left waits for the next who looks."""
    journal = folder.create()
    records = make_records(3)
    journal.append(records)
    journal.seal("file", LaneState(1, (2,)))
    assert folder.adopt() == []
    journal.close()

    [adopted] = folder.adopt()

    assert adopted.journal_id == journal.journal_id
    assert [r.data for r in adopted.read(0, 9, 1 << 20)] == [r.data for r in records]
    assert adopted.lanes() == {"file": LaneState(1, (2,))}
    assert JournalFolder(path).adopt() == []
    adopted.close(remove=True)
    assert names(path) == []


def test_orphans_are_adopted_oldest_first(folder, orphan):
    """All that wait are taken over, in the order in which they were made."""
    for name in ("c", "a", "b"):
        orphan(name)

    adopted = folder.adopt()

    assert [journal.journal_id for journal in adopted] == ["c", "a", "b"]
    assert folder.adopt() == []
    for journal in adopted:
        journal.close(remove=True)


@pytest.mark.parametrize(("events", "settled"), [(10, 10), (0, 0), (10, 12)])
def test_what_is_settled_is_deleted(folder, path, orphan, events, settled):
    """A file that no lane needs any more goes at adoption."""
    orphan(events=events, settled=settled)

    assert folder.adopt() == []
    assert names(path) == []
    assert folder.quarantined == 0


def test_a_journal_without_any_seal_is_kept(folder, path, make_records):
    """Records that no lane has ever spoken of are not thrown away."""
    path.mkdir(parents=True)
    with closing(SqliteJournal(path / "j.db")) as journal:
        journal.append(make_records(3))

    [adopted] = folder.adopt()

    assert adopted.end == 3
    adopted.close()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda p: p.write_bytes(b"not a database" * 99), "corrupt"),
        (lambda p: execute(p, "pragma application_id = 7"), "foreign"),
        (lambda p: execute(p, "pragma user_version = 99"), "newer"),
        (lambda p: execute(p, "drop table meta"), "corrupt"),
    ],
)
def test_unfit_files_are_put_aside(folder, path, orphan, damage, reason):
    """Corrupt, foreign and newer files are moved, counted, and never deleted."""
    file = orphan("bad")
    damage(file)
    content = file.read_bytes()
    orphan("good")

    [adopted] = folder.adopt()

    assert adopted.journal_id == "good"
    assert folder.quarantined == 1
    assert (path / "quarantine" / f"bad.{reason}.db").read_bytes() == content
    assert stat.S_IMODE((path / "quarantine").stat().st_mode) == 0o700
    adopted.close(remove=True)
    assert names(path) == ["quarantine"]


def test_a_file_put_aside_hides_no_other(folder, path):
    """Two unfit files of one name are both kept."""
    path.mkdir(parents=True)
    for text in (b"one " * 999, b"two " * 999):
        (path / "bad.db").write_bytes(text)
        assert folder.adopt() == []

    kept = [file.read_bytes()[:4] for file in (path / "quarantine").iterdir()]
    assert sorted(kept) == [b"one ", b"two "]
    assert folder.quarantined == 2


def test_an_empty_file_is_deleted(folder, path):
    """A process that died while it made its file left nothing to keep."""
    path.mkdir(parents=True)
    (path / "new.db").touch()

    assert folder.adopt() == []
    assert names(path) == []


def test_a_link_is_not_adopted(folder, path, tmp_path):
    """A link in the folder leads to no journal elsewhere."""
    path.mkdir(parents=True)
    SqliteJournal(tmp_path / "elsewhere.db").close()
    (path / "link.db").symlink_to(tmp_path / "elsewhere.db")

    assert folder.adopt() == []
    assert (tmp_path / "elsewhere.db").exists()


def test_what_is_put_aside_can_be_read(folder, path, make_records):
    """A file goes into quarantine with its log, so that nothing of it is missing."""
    records = make_records(3)
    journal = folder.create()
    journal.append(records)
    execute(journal._disk.path, "pragma user_version = 99")
    for suffix in ("", "-wal"):
        shutil.copy(f"{journal._disk.path}{suffix}", path / f"copy.db{suffix}")

    folder.adopt()

    aside = path / "quarantine" / "copy.newer.db"
    with closing(sqlite3.connect(aside)) as connection:
        [(data,)] = connection.execute("select data from runs")
    assert data == b"\n".join(record.data for record in records)
    journal.close(remove=True)


def test_a_damaged_journal_is_put_aside_at_its_end(folder, path, orphan):
    """What the disk has damaged is kept for whoever can mend it."""
    execute(orphan(), "update runs set checks = x'00'")
    [journal] = folder.adopt()
    journal.read(0, 99, 1 << 20)
    journal.release(journal.end)

    journal.close(remove=True)

    assert names(path) == ["quarantine"]
    assert names(path / "quarantine") == ["dead.damaged.db"]


def test_a_live_file_that_turns_corrupt_moves(folder, path, clock, make_records):
    """The unfit file is put aside under a living journal, and a new one is in its place."""
    records = make_records(20)
    journal = folder.create()
    journal.append(records[:10])
    journal.seal("file", LaneState(0))
    journal._is_gone, journal.durable = True, False
    clock.now = 1.0
    journal.append(records[10:])

    assert (journal.durable, journal.lost) == (True, 0)
    aside = path / "quarantine" / f"{journal.journal_id}.replaced.db"
    with closing(sqlite3.connect(aside)) as connection:
        [(data,)] = connection.execute("select data from runs")
    assert len(data.splitlines()) == 10
    with closing(SqliteJournal(journal._disk.path)) as found:
        assert (found.end, found.lanes()) == (20, {"file": LaneState(0)})
    journal.append(records[:1])
    journal.close()
    [again] = folder.adopt()
    assert (again.end, again.lanes()) == (21, {"file": LaneState(0)})
    assert len(again.read(0, 99, 1 << 20)) == 21
    again.close(remove=True)


def test_a_deleted_folder_comes_back_with_its_lock(folder, path, clock, make_records):
    """File and lock are made again, and what was there is there."""
    journal = folder.create()
    journal.append(make_records(5))
    shutil.rmtree(path)
    clock.now = 1.0
    journal.maintain(clock.now)

    assert journal.durable
    assert locks.is_held(path / f"{journal.journal_id}.lock")
    assert JournalFolder(path).adopt() == []
    journal.close(remove=True)
    assert names(path) == []


def test_a_deleted_lock_is_taken_again(folder, path, clock, make_records):
    """A cleaner who deletes the side file takes the journal from nobody."""
    journal = folder.create()
    journal.append(make_records(5))
    (path / f"{journal.journal_id}.lock").unlink()
    clock.now = 1.0
    journal.maintain(clock.now)

    assert (journal.durable, journal.fallbacks) == (True, 0)
    assert JournalFolder(path).adopt() == []
    journal.close(remove=True)


def test_a_journal_adopted_by_another_is_left(folder, path, clock, make_records):
    """Without its lock a journal goes on in memory, and on disk when the other is done."""
    journal = folder.create()
    journal.append(make_records(5))
    lock = path / f"{journal.journal_id}.lock"
    lock.unlink()
    other = locks.take(lock)
    clock.now = 1.0
    journal.append(make_records(5))
    assert (journal.durable, journal.memory_events) == (False, 5)

    other.drop(unlink=True)
    clock.now = 2.0
    journal.maintain(clock.now)
    assert (journal.durable, journal.memory_events) == (True, 0)
    journal.close(remove=True)


def test_a_folder_that_cannot_be_made_hurts_nobody(tmp_path, clock, make_records):
    """Where there is a file in the folder's place, journals live in memory until then."""
    place = tmp_path / "journal"
    place.write_text("")
    folder = JournalFolder(place, clock=clock)
    journal = folder.create()
    journal.append(make_records(3))
    assert (journal.durable, journal.memory_events) == (False, 3)
    assert folder.adopt() == []

    place.unlink()
    clock.now = 1.0
    journal.maintain(clock.now)

    assert journal.durable
    [info] = inspect(place)
    assert (info.journal_id, info.end, info.state) == (journal.journal_id, 3, "live")
    journal.close(remove=True)


def test_a_child_leaves_all_to_its_parent(folder, path, make_records):
    """After a fork the child holds no lock, and touches no file of its parent."""
    journal = folder.create()
    journal.append(make_records(3))
    lock = folder._places[journal.journal_id]._lock

    folder.leave_to_parent()

    assert lock.holds is False  # its descriptor is closed
    journal.close(remove=True)
    assert (path / f"{journal.journal_id}.db").exists()
    sqlite._forsaken.pop().close()


def test_a_journal_without_a_lock_can_be_left_to_the_parent(tmp_path):
    """A journal that lived in memory has nothing to leave."""
    (tmp_path / "journal").write_text("")
    folder = JournalFolder(tmp_path / "journal")
    journal = folder.create()

    folder.leave_to_parent()

    journal.close()
    assert folder._places == {}


def test_a_network_folder_is_refused(tmp_path, monkeypatch):
    """A journal on another machine is a setting that cannot work."""
    table = tmp_path / "mounts"
    table.write_text("server:/ / nfs rw 0 0\n")
    monkeypatch.setattr(mounts, "TABLE", table)

    with pytest.raises(ConfigurationError, match="network file system"):
        JournalFolder(tmp_path)


def test_what_cannot_be_put_aside_stays(folder, path, make_records):
    """A file that cannot be moved stays where it is, not counted, not deleted."""
    path.mkdir(parents=True)
    (path / "bad.db").write_bytes(b"not a database" * 99)
    (path / "quarantine").write_text("a file in its place")

    assert folder.adopt() == []
    assert (path / "bad.db").exists()
    assert folder.quarantined == 0


def test_what_cannot_be_opened_now_is_left_for_later(folder, path, orphan, monkeypatch):
    """An orphan on a disk that gives no answer waits; its lock is free again."""
    file = orphan()
    real = sqlite.check_format

    def broken(connection):
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(sqlite, "check_format", broken)
    assert folder.adopt() == []
    monkeypatch.setattr(sqlite, "check_format", real)

    assert file.exists()
    [adopted] = folder.adopt()
    adopted.close(remove=True)


def test_a_lock_that_cannot_be_taken_leaves_the_file(folder, path, orphan, tmp_path):
    """An orphan whose side file is a link somewhere is left alone."""
    orphan()
    (path / "dead.lock").symlink_to(tmp_path / "elsewhere")

    assert folder.adopt() == []
    assert (path / "dead.db").exists()


def test_a_file_drained_by_another_meanwhile_is_none(folder, path, orphan, monkeypatch):
    """Between seeing an orphan and locking it another process was faster."""
    file = orphan()
    take = locks.take

    def late(lock):
        file.unlink()
        return take(lock)

    monkeypatch.setattr(locks, "take", late)

    assert folder.adopt() == []
    assert names(path) == []
