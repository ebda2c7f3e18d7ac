"""A sink's place in a journal: batches, seals, and what is settled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bizlog.delivery.cursor import ANY_SIZE, Cursor
from bizlog.delivery.journal import JournalError, LaneState, MemoryJournal
from bizlog.sinks import Record


def record(number):
    """Make a record of ten bytes."""
    return Record(b"0123456789", str(number), "t", "", number)


@pytest.fixture
def journal():
    """A journal with ten records."""
    journal = MemoryJournal("j")
    journal.append([record(number) for number in range(10)])
    return journal


@pytest.fixture
def cursor(journal):
    """A cursor at its start."""
    return Cursor(journal, "sink", LaneState(0))


def spans(batches):
    """Say which positions batches take."""
    return [(batch.first, batch.last) for batch in batches]


def test_a_sink_that_is_new_starts_at_the_end(journal):
    """What was there before was not meant for it."""
    cursor = Cursor(journal, "sink")

    assert (cursor.settled, cursor.pending, cursor.waiting) == (10, 0, 0)
    assert cursor.seal(100, ANY_SIZE) is None


def test_a_sink_starts_where_it_stood(journal):
    """Behind what was settled; never before what the journal still has."""
    assert Cursor(journal, "sink", LaneState(4)).pending == 6
    journal.append([record(10)])
    journal.release(10)

    assert Cursor(journal, "sink", LaneState(4)).next == 10


def test_batches_tile_the_journal(cursor):
    """No gap, no overlap, and a name each."""
    batches = [cursor.seal(4, ANY_SIZE) for _ in range(3)]

    assert spans(batches) == [(0, 3), (4, 7), (8, 9)]
    assert batches[1].name == "j-4-7"
    assert cursor.seal(4, ANY_SIZE) is None
    assert (cursor.settled, cursor.waiting, cursor.pending) == (0, 0, 10)


def test_a_batch_keeps_to_its_bytes(cursor):
    """As many records as fit, one in any case."""
    assert len(cursor.seal(100, 35).records) == 3
    assert len(cursor.seal(100, 1).records) == 1


def test_a_batch_is_known_to_the_journal_before_it_is_sent(cursor, journal):
    """Its bounds are what names it after a crash."""
    cursor.seal(4, ANY_SIZE)
    assert journal.lanes()["sink"] == LaneState(0, (3,))
    cursor.seal(4, ANY_SIZE)
    assert journal.lanes()["sink"] == LaneState(0, (3, 7))


def test_what_is_settled_is_written_with_the_next_seal_or_at_rest(cursor, journal):
    """A write for each batch, not two; `save` writes what is left, once."""
    first = cursor.seal(4, ANY_SIZE)
    cursor.settle(first)
    assert journal.lanes()["sink"] == LaneState(0, (3,))
    second = cursor.seal(4, ANY_SIZE)
    assert journal.lanes()["sink"] == LaneState(4, (7,))
    cursor.settle(second)
    cursor.save()
    assert journal.lanes()["sink"] == LaneState(8)
    journal.seal("sink", LaneState(99))
    cursor.save()

    assert journal.lanes()["sink"] == LaneState(99)  # nothing new: nothing written


def test_what_is_settled_ends_at_the_oldest_that_is_not(cursor, journal):
    """Batches may be settled in any order; seals tile what is left."""
    batches = [cursor.seal(3, ANY_SIZE) for _ in range(3)]
    cursor.settle(batches[1])
    assert (cursor.settled, cursor.pending, cursor.sealed) == (0, 7, 3)
    cursor.save()
    assert journal.lanes()["sink"] == LaneState(0, (2, 5, 8))
    cursor.settle(batches[0])
    assert (cursor.settled, cursor.pending, cursor.sealed) == (6, 4, 1)
    cursor.settle(batches[2])

    assert (cursor.settled, cursor.pending, cursor.sealed) == (9, 1, 0)


def test_old_seals_are_taken_up_whatever_the_limits_are(journal):
    """The same batch under the same name; then the limits hold."""
    cursor = Cursor(journal, "sink", LaneState(1, (5, 6)))
    batches = [cursor.seal(2, 1) for _ in range(3)]

    assert spans(batches) == [(1, 5), (6, 6), (7, 7)]


def test_old_seals_that_are_not_taken_up_yet_stay(journal):
    """A second crash finds the bounds that the first one left."""
    cursor = Cursor(journal, "sink", LaneState(0, (1, 3, 5)))
    cursor.seal(100, ANY_SIZE)

    assert journal.lanes()["sink"] == LaneState(0, (1, 3, 5))


def test_old_seals_before_what_is_there_are_forgotten(journal):
    """They name nothing that could still be sent."""
    journal.append([record(10)])
    journal.release(10)
    cursor = Cursor(journal, "sink", LaneState(0, (4, 10)))

    assert spans([cursor.seal(100, ANY_SIZE)]) == [(10, 10)]


def test_what_is_too_old_is_skipped(journal):
    """Up to a position, seals within included; the rest of a cut seal stays."""
    cursor = Cursor(journal, "sink", LaneState(0, (1, 5, 8)))

    assert cursor.skip_to(0) == 0
    assert cursor.skip_to(4) == 4
    assert cursor.skip_to(2) == 0
    assert spans([cursor.seal(1, 1), cursor.seal(1, 1)]) == [(4, 5), (6, 8)]
    assert cursor.skip_to(10**9) == 1
    assert cursor.waiting == 0


def test_what_is_given_up_is_handed_out(cursor):
    """The oldest that are not sealed; what flies is not touched."""
    batch = cursor.seal(2, ANY_SIZE)

    assert [r.sequence for r in cursor.skip(3)] == [2, 3, 4]
    assert (cursor.settled, cursor.pending) == (0, 7)
    cursor.settle(batch)
    assert (cursor.settled, cursor.pending) == (5, 5)


@pytest.mark.parametrize("position", range(12))
def test_the_end_gives_up_what_stands_behind_a_position(cursor, journal, position):
    """What stands before it goes on waiting, and the journal is told so."""
    batch = cursor.seal(2, ANY_SIZE)
    given_up = cursor.end_at(position)

    expected = range(max(2, position), 10)
    assert [r.sequence for r in given_up] == list(expected)
    assert cursor.pending == 10 - len(given_up)
    assert cursor.end_at(position) == []
    cursor.settle(batch)
    cursor.save()
    assert journal.lanes()["sink"] == LaneState(2)


def test_a_journal_that_gives_no_answer_loses_nothing(cursor, journal, monkeypatch):
    """No batch, nothing given up, and all of it goes on waiting."""

    def fail(*_):
        raise JournalError("EIO")

    monkeypatch.setattr(journal, "read", fail)

    assert cursor.seal(4, ANY_SIZE) is None
    assert cursor.skip(4) == []
    assert cursor.end_at(0) == []
    assert cursor.pending == 10


def test_a_seal_that_cannot_be_written_does_not_stop_the_batch(
    cursor, journal, monkeypatch, told
):
    """After a crash it might go under another name; that is told."""

    def fail(*_):
        raise JournalError("EIO")

    monkeypatch.setattr(journal, "seal", fail)

    assert len(cursor.seal(4, ANY_SIZE).records) == 4
    assert "EIO" in told[0]


@given(st.data())
def test_any_order_of_sealing_and_settling_keeps_count(data):
    """Settled never passes what is not, and a successor sees the same batches."""
    journal = MemoryJournal("j")
    cursor = Cursor(journal, "sink")
    flying, settled, gap = {}, set(), 10**9
    for _ in range(data.draw(st.integers(0, 30))):
        step = data.draw(st.sampled_from(["append", "seal", "settle", "skip"]))
        if step == "append":
            events = data.draw(st.integers(1, 5))
            journal.append([record(journal.end + n) for n in range(events)])
        elif step == "seal" and (batch := cursor.seal(3, ANY_SIZE)):
            flying[batch.first] = batch
        elif step == "settle" and flying:
            first = data.draw(st.sampled_from(sorted(flying)))
            batch = flying.pop(first)
            cursor.settle(batch)
            settled.update(range(batch.first, batch.last + 1))
        elif step == "skip" and cursor.waiting:
            gap = min(gap, cursor.next) if flying else gap
            settled.update(r.sequence for r in cursor.skip(2))
        gap = gap if flying else 10**9
        open_ones = set(range(journal.end)) - settled
        assert cursor.settled == min(open_ones, default=journal.end)
        assert cursor.pending == len(open_ones)
    cursor.save()
    if not flying:
        return
    successor = Cursor(journal, "sink", journal.lanes()["sink"])
    names = set()
    while batch := successor.seal(1, 1):
        names.add(batch.name)
    before_the_gap = [batch for batch in flying.values() if batch.first < gap]
    assert names >= {batch.name for batch in before_the_gap}
