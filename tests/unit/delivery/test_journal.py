"""The memory journal against the simplest model of it: a list that forgets nothing."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bizlog.delivery.journal import LaneState, MemoryJournal
from bizlog.sinks import Record


def make_record(number, size):
    """Make a record of so many bytes."""
    return Record(b"x" * size, f"id-{number}", "order.placed", "", number)


class JournalMachine(RuleBasedStateMachine):
    """Appends, reads with limits and releases at the pace of the slowest cursor."""

    def __init__(self):
        super().__init__()
        self.journal = MemoryJournal()
        self.model = []
        self.cursors = [0, 0, 0]

    @rule(sizes=st.lists(st.integers(0, 9), max_size=6))
    def append(self, sizes):
        """A run goes to the end, an empty one changes nothing."""
        run = [make_record(len(self.model) + i, size) for i, size in enumerate(sizes)]
        self.journal.append(run)
        self.model += run

    @rule(
        who=st.integers(0, 2),
        events=st.integers(1, 8),
        size=st.integers(1, 30),
    )
    def read(self, who, events, size):
        """Reading yields the longest piece within both limits, never less than one."""
        position = self.cursors[who]
        found = self.journal.read(position, events, size)

        expected = []
        for record in self.model[position : position + events]:
            if expected and sum(len(r.data) for r in [*expected, record]) > size:
                break
            expected.append(record)
        assert found == expected
        assert self.journal.read(position, events, size) == expected  # changes nothing
        self.cursors[who] += len(found)

    @rule()
    def release(self):
        """What every cursor has passed may be forgotten."""
        self.journal.release(min(self.cursors))

    @rule(who=st.integers(0, 2))
    def read_all(self, who):
        """Everything before a cursor can be read at once."""
        position = self.cursors[who]
        assert self.journal.read(position, 1 << 62, 1 << 62) == self.model[position:]

    @invariant()
    def end_counts_all_ever_appended(self):
        """Positions are never used twice."""
        assert self.journal.end == len(self.model)

    @invariant()
    def memory_is_bounded_by_the_slowest_cursor(self):
        """After a release at most one run before the slowest cursor is kept."""
        self.journal.release(min(self.cursors))
        assert sum(len(run) for run in self.journal._runs) <= (
            len(self.model) - min(self.cursors) + 6
        )


TestJournal = JournalMachine.TestCase
TestJournal.settings = settings(max_examples=60, deadline=None, stateful_step_count=40)


def test_journals_have_names_of_their_own():
    """Two journals never share an id: it is part of every batch's name."""
    assert MemoryJournal().journal_id != MemoryJournal().journal_id


def test_all_is_forgotten_when_all_is_released():
    """A drained journal holds no record."""
    journal = MemoryJournal()
    for number in range(10):
        journal.append([make_record(number, 5)])

    journal.release(10)

    assert journal._runs == []
    assert journal.read(10, 5, 5) == []


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_run_in_use_is_kept_whole(position):
    """Releasing the middle of a run keeps what lies behind it readable."""
    journal = MemoryJournal()
    run = [make_record(number, 1) for number in range(3)]
    journal.append(run)

    journal.release(position)

    assert journal.read(position, 9, 9) == run[position:]


def test_start_is_the_first_record_that_is_still_there():
    """`start` follows the releases by whole runs, and meets `end` when all is gone."""
    journal = MemoryJournal(start=100)
    for _ in range(3):
        journal.append([make_record(number, 2) for number in range(10)])
    starts = [journal.start]

    for position in (109, 110, 125, 130):
        journal.release(position)
        starts.append(journal.start)

    assert starts == [100, 100, 110, 120, 130]
    assert (journal.end, journal.size) == (130, 0)


def test_size_counts_the_bytes_that_are_held():
    """`size` grows with each append and falls with each run that is forgotten."""
    journal = MemoryJournal()
    journal.append([make_record(0, 5), make_record(1, 7)])
    journal.append([make_record(2, 3)])
    assert journal.size == 15

    journal.release(2)

    assert journal.size == 3


def test_runs_are_given_back_as_they_came():
    """Runs can be copied elsewhere from any position; only the first may be cut."""
    journal = MemoryJournal()
    records = [make_record(number, 1) for number in range(6)]
    for start in (0, 2, 4):
        journal.append(records[start : start + 2])

    assert list(journal.runs(3)) == [records[3:4], records[4:6]]
    assert list(journal.runs(6)) == []


def test_lanes_are_found_as_last_sealed():
    """The last seal of each lane counts, and what is handed out is a copy."""
    journal = MemoryJournal("a-name")
    journal.seal("file", LaneState(0, (9,)))
    journal.seal("http-2", LaneState(3))
    journal.seal("file", LaneState(10, (14, 19)))

    journal.lanes().clear()

    assert journal.lanes() == {"file": LaneState(10, (14, 19)), "http-2": LaneState(3)}
    assert journal.journal_id == "a-name"
    journal.close()
