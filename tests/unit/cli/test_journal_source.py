"""The events in a journal's file, read beside its owner."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from bizlog.cli.entries import BadLine
from bizlog.cli.errors import CommandError
from bizlog.cli.journal_source import JournalSource
from bizlog.cli.sources import Sources
from bizlog.delivery.sqlite import SqliteJournal


def numbers(source, after=0):
    """Read the numbers of the events."""
    return [entry.record.sequence for entry in source.entries(after)]


def test_all_that_stands_there_is_read(make_journal):
    """Every event with its bytes, in order; the place is the position plus one."""
    source = JournalSource(make_journal(numbers=range(1, 121)))
    assert source.read_bytes == 0
    entries = list(source.entries())
    assert [entry.record.sequence for entry in entries] == list(range(1, 121))
    assert [entry.place.line for entry in entries] == list(range(1, 121))
    assert entries[0].producer_id == "producer-1"
    assert source.read_bytes == source.size > 0
    assert source.damage is None


def test_reading_may_begin_behind_a_place(make_journal):
    """In the middle of a run, too."""
    source = JournalSource(make_journal(numbers=range(1, 121)))
    assert numbers(source, 70) == list(range(71, 121))
    assert numbers(source, 120) == numbers(source, 500) == []


def test_an_empty_journal_has_no_events(make_journal):
    """Nothing to read is no error."""
    assert numbers(JournalSource(make_journal(numbers=()))) == []


def test_a_living_journal_is_read_beside_its_owner(make_journal):
    """What it deletes and appends meanwhile is passed over; its owner is not held up."""
    path = make_journal(numbers=range(1, 121))
    owner = SqliteJournal(path)
    entries = JournalSource(path).entries()
    assert next(entries).record.sequence == 1
    owner.release(100)
    owner.tidy()
    owner.append(owner.read(100, 1, 1 << 20))
    rest = [entry.record.sequence for entry in entries]
    owner.close()
    assert rest == [*range(2, 51), *range(101, 121)]


def test_nothing_is_written_beside_a_closed_file(make_journal):
    """No log, no shared memory, no lock comes into being by reading."""
    path = make_journal()
    before = sorted(path.parent.iterdir())
    numbers(JournalSource(path))
    assert sorted(path.parent.iterdir()) == before


def test_damaged_events_are_told_one_by_one(make_journal):
    """The others of the run are read; each damaged one has its place."""
    path = make_journal(numbers=range(1, 51))
    with sqlite3.connect(path) as connection:
        connection.execute("update runs set data = zeroblob(length(data))")
    connection.close()
    entries = list(JournalSource(path).entries())
    assert len(entries) == 50
    assert all(isinstance(entry, BadLine) for entry in entries)
    assert str(entries[6]).endswith("j1.db:7: the event is damaged on the disk")


@pytest.mark.parametrize("sql", ["create table other (x)", "pragma user_version = 99"])
def test_a_file_of_another_kind_is_named(make_journal, own_folder, sql):
    """A database of another program, or of a later version: an error with its name."""
    path = make_journal() if "version" in sql else own_folder / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute(sql)
    connection.close()
    with pytest.raises(CommandError, match=r"\.db: cannot be read as a journal"):
        numbers(JournalSource(path))


def test_sources_find_journals_but_not_the_quarantine(make_journal):
    """A journal folder is a source; what was put aside there is not."""
    path = make_journal()
    aside = path.parent / "quarantine"
    aside.mkdir()
    (aside / "bad.corrupt.db").write_bytes(path.read_bytes())
    sources = Sources([path.parent])
    assert [type(source) for source in sources.files] == [JournalSource]
    assert len(numbers(sources.files[0])) == 120
    assert sources.fraction == 1.0
    assert isinstance(Sources([Path(path)]).files[0], JournalSource)
