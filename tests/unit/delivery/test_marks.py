"""Marks: how far a process had counted, whatever ended it."""

from __future__ import annotations

import stat

import pytest

from bizlog.delivery import locks, marks
from bizlog.delivery.marks import JOURNALED, OFFERED, Mark, read_mark, sweep


@pytest.fixture
def mark(tmp_path):
    """Open a mark of a producer, and let it go at the end."""
    made = Mark(tmp_path, "producer-1")
    made.open()
    yield made
    made.leave_to_parent()


def die(mark, *, offered, journaled):
    """Leave the file as a process does that is killed."""
    mark.cells[OFFERED] = offered
    mark.cells[JOURNALED] = journaled
    mark.leave_to_parent()


def test_what_was_stored_is_read_when_its_process_is_dead(mark, tmp_path):
    """Without any further call: the page is the file's."""
    die(mark, offered=57, journaled=40)
    found = read_mark(tmp_path / "producer-1.mark")
    assert (found.producer_id, found.offered, found.journaled) == ("producer-1", 57, 40)


def test_a_living_process_has_lost_nothing_yet(mark):
    """Its mark is not read while it holds the lock."""
    mark.cells[OFFERED] = 5
    assert read_mark(mark.path) is None


def test_only_the_user_reads_it(mark):
    """The file has the mode of a journal's."""
    assert stat.S_IMODE(mark.path.stat().st_mode) == 0o600


def test_numbers_stored_before_the_file_was_there_are_in_it(tmp_path):
    """A folder that cannot be written at first loses none of them."""
    mark = Mark(tmp_path / "missing", "producer-1")
    with pytest.raises(OSError, match="missing"):
        mark.open()
    mark.cells[OFFERED] = 7
    mark.path.parent.mkdir()
    mark.open()
    mark.leave_to_parent()
    assert read_mark(mark.path).offered == 7


def test_a_deleted_file_is_made_again(mark):
    """And has what the first one had; one that is there is left alone."""
    mark.cells[OFFERED] = 7
    before = mark.cells
    mark.open()
    assert mark.cells is before
    mark.path.unlink()
    mark.open()
    mark.leave_to_parent()
    assert read_mark(mark.path).offered == 7


def test_what_the_journal_has_was_offered(mark):
    """A number may come to the journal before the mark was open; none goes back."""
    mark.journaled(9)
    mark.journaled(4)
    assert list(mark.cells) == [9, 9]


@pytest.mark.parametrize(("journaled", "stays"), [(7, False), (6, True)])
def test_at_the_end_it_stays_only_where_something_is_missing(mark, journaled, stays):
    """A process that ends well leaves no file."""
    mark.cells[OFFERED] = 7
    mark.journaled(journaled)
    mark.close()
    mark.close()
    assert mark.path.exists() is stays


def test_somebody_elses_lock_is_respected(tmp_path):
    """Two processes never share a mark."""
    other = locks.take(tmp_path / "producer-1.mark")
    with pytest.raises(OSError, match="another process"):
        Mark(tmp_path, "producer-1").open()
    other.close()


def test_a_full_disk_is_an_error_and_no_signal(tmp_path, monkeypatch):
    """A page that is not wholly in the file is never stored to."""
    monkeypatch.setattr(marks.os, "write", lambda descriptor, data: 0)
    mark = Mark(tmp_path, "producer-1")
    with pytest.raises(OSError, match="no room"):
        mark.open()
    mark.cells[OFFERED] = 3
    mark.leave_to_parent()


@pytest.mark.parametrize("content", [b"", b"bizlog mark 1\n\0\0", b"x" * 4096])
def test_what_is_no_mark_says_nothing(tmp_path, content):
    """A foreign file of that name, or one that is cut, is left alone."""
    path = tmp_path / "a.mark"
    path.write_bytes(content)
    assert read_mark(path) is None
    sweep(tmp_path)
    assert path.exists()
    assert read_mark(tmp_path / "none.mark") is None


def test_marks_that_tell_nothing_are_swept(tmp_path, told):
    """Of dead processes whose journal had all; the others are told of, and stay."""
    for name, journaled in (("a", 9), ("b", 5)):
        mark = Mark(tmp_path, name)
        mark.open()
        die(mark, offered=9, journaled=journaled)
    (tmp_path / "a.db").write_bytes(b"")
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db", "b.mark"]
    assert "1 processes" in told[0] and "up to 4 events" in told[0]


def test_marks_are_bounded(tmp_path, told, monkeypatch):
    """A service that is killed without end leaves the newest ones."""
    monkeypatch.setattr(marks, "MOST_MARKS", 2)
    for name in "dbca":
        mark = Mark(tmp_path, name)
        mark.open()
        die(mark, offered=2, journaled=1)
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.mark", "d.mark"]
