"""Journals of dead processes: handed out, freed, deleted when nothing waits in them."""

from __future__ import annotations

import pytest

from bizlog.delivery.inheritance import Inheritance
from bizlog.delivery.journal import LaneState


class Heir:
    """A lane as `Inheritance` sees it."""

    def __init__(self, name):
        self.name = name
        self.adopted = []
        self.places = {}

    def adopt(self, journal, state, fresh):
        self.adopted.append((journal, state, fresh))
        self.places[journal] = journal.end if state is None else state.settled

    def settled_in(self, journal):
        return self.places[journal]


@pytest.fixture
def make_journal(disk_journal, make_records):
    """Make a journal of some records with the places of its lanes."""

    def make(events, **lanes):
        journal = disk_journal("old")
        for record in make_records(events):
            journal.append([record])
        journal.appended_at = [float(second) for second in range(events)]
        for name, settled in lanes.items():
            journal.seal(name, LaneState(settled))
        return journal

    return make


def inherit(lanes, *journals, **options):
    """Adopt journals once."""
    waiting = [list(journals)]
    inheritance = Inheritance(
        lambda: waiting.pop() if waiting else [], lanes, **options
    )
    inheritance.look()
    return inheritance


def test_each_lane_gets_its_place(make_journal):
    """A lane that the journal does not know is told so."""
    journal, lanes = make_journal(5, a=2, b=3), [Heir("a"), Heir("b"), Heir("new")]
    inherit(lanes, journal)

    assert [lane.adopted for lane in lanes] == [
        [(journal, LaneState(2), 0)],
        [(journal, LaneState(3), 0)],
        [(journal, None, 0)],
    ]


def test_a_journal_is_freed_as_the_slowest_lane_settles_it(make_journal):
    """And deleted, once, when the last one is done."""
    journal, lanes = make_journal(5, a=0, b=0), [Heir("a"), Heir("b")]
    inheritance = inherit(lanes, journal)
    lanes[0].places[journal] = 4
    inheritance.release()
    assert journal.start == 0
    lanes[1].places[journal] = 3
    inheritance.release()
    assert journal.start == 3
    assert not journal.is_removed
    lanes[0].places[journal] = lanes[1].places[journal] = 5
    inheritance.release()
    assert journal.is_removed
    journal.is_removed = False
    inheritance.release()
    inheritance.close()

    assert not journal.is_removed


def test_a_journal_in_which_nothing_waits_is_deleted_at_once(make_journal):
    """All its lanes had settled all of it."""
    journal = make_journal(3, a=3)
    inherit([Heir("a")], journal)

    assert journal.is_removed


def test_what_waits_for_a_sink_that_is_gone_stays(make_journal, told):
    """It is not deleted, and the log says what to do."""
    journal, lane = make_journal(5, a=0, gone=2), Heir("a")
    inheritance = inherit([lane], journal)
    lane.places[journal] = 5
    inheritance.release()

    assert journal.start == 2
    assert not journal.is_removed
    assert len(told) == 1
    assert "3 events for a sink 'gone'" in told[0]
    inheritance.close()
    assert journal.is_closed


def test_a_sink_that_is_gone_and_waits_for_nothing_holds_nothing_up(make_journal, told):
    """Its place at the end is no reason to keep a file."""
    journal = make_journal(5, gone=5)
    inherit([Heir("a")], journal)

    assert journal.is_removed
    assert told == []


def test_what_is_too_old_is_named(make_journal):
    """`journal_max_age`, by the wall clock of its appending."""
    journal, lane = make_journal(5, a=0), Heir("a")
    inherit([lane], journal, max_age=10.0, wall_clock=lambda: 12.5)

    assert lane.adopted == [(journal, LaneState(0), 3)]


def test_a_journal_without_lanes_is_for_every_sink(make_journal):
    """Its process died before it could write down who its sinks are."""
    journal, lanes = make_journal(5), [Heir("a"), Heir("b")]
    inherit(lanes, journal)

    assert [lane.adopted for lane in lanes] == [[(journal, LaneState(0), 0)]] * 2
