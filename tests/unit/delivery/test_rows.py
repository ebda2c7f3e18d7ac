"""Runs as rows, and what is left of them when the disk has damaged a row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bizlog.delivery import rows
from bizlog.delivery.journal import DAMAGED
from bizlog.delivery.rows import Chunk, pack, unpack
from bizlog.sinks import Record


@pytest.fixture
def run(make_records):
    """A run over several blocks."""
    return make_records(60, size=300)


def flip(data, at, bit=0):
    """Damage one bit."""
    return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]


def test_a_run_comes_back_as_it_went(run):
    """Bytes, id, type, time and sequence of each record are the same after a row."""
    checks, data = pack(run)

    found = unpack(60, checks, data)

    assert [record.data for record in found] == [record.data for record in run]
    assert found[0].event_id == run[0].event_id
    assert found[0].event_type == "order.placed"


def test_all_that_a_record_says_is_read_from_its_bytes():
    """The four fields stand in the event itself."""
    line = (
        b'{"event_id":"a","event_type":"b.c","event_source":"s","event_time":"d",'
        b'"sequence":7}'
    )
    record = Record(line, "a", "b.c", "d", 7)

    assert unpack(1, *pack([record])) == [record]


def test_data_is_lines_of_json(run):
    """Any tool can rescue a run: one event a line, nothing else."""
    _, data = pack(run)

    assert data.split(b"\n") == [record.data for record in run]


@given(at=st.integers(0, 60 * 301 - 2), bit=st.integers(0, 7))
def test_a_damaged_bit_never_gives_a_wrong_record(at, bit):
    """Records near a flipped bit are `DAMAGED`, all others are there, in their place."""
    event = b'{"event_id":"%04d","event_type":"a.b"}'
    run = [Record((event % n).ljust(300), f"{n:04}", "a.b", "", 0) for n in range(60)]
    checks, data = pack(run)

    found = unpack(60, checks, flip(data, at, bit))

    struck = [index for index, record in enumerate(found) if record is DAMAGED]
    assert at // 301 in struck or data[at : at + 1] == b"\n"
    assert len(struck) <= rows.CHECK_BYTES // 300 + 3
    assert [r for r in found if r is not DAMAGED] == [
        r for n, r in enumerate(run) if n not in struck
    ]


@pytest.mark.parametrize("cut", [1, 5_000, 18_000])
def test_a_run_of_another_length_is_damaged_as_a_whole(run, cut):
    """What is shorter than it was cannot be cut into its records."""
    checks, data = pack(run)

    assert unpack(60, checks, data[:-cut]) == [DAMAGED] * 60


@pytest.mark.parametrize("at", [0, 100, -1])
def test_damaged_checks_vouch_for_nothing(run, at):
    """A record is given back only where its check says so."""
    checks, data = pack(run)
    at %= len(checks)

    assert unpack(60, flip(checks, at), data) == [DAMAGED] * 60
    assert unpack(60, b"", data) == [DAMAGED] * 60


def test_positions_stay_where_a_row_names_another_number(run):
    """The row's own first and last decide how many positions it fills."""
    assert unpack(59, *pack(run)) == [DAMAGED] * 59
    assert unpack(61, *pack(run)) == [DAMAGED] * 61


def test_what_is_no_event_is_damaged():
    """A line that was written whole and still is no event holds up nobody."""
    good = Record(b'{"event_id":"a"}', "a", "", "", 0)
    bad = [Record(data, "", "", "", 0) for data in (b"{", b"5", b'"\xff"')]

    assert unpack(4, *pack([*bad, good])) == [DAMAGED] * 3 + [good]


@given(
    sizes=st.lists(st.integers(0, 20), min_size=1, max_size=30),
    skip=st.integers(0, 29),
    events=st.integers(1, 40),
    size=st.integers(0, 200),
)
def test_a_chunk_is_cut_within_both_limits(sizes, skip, events, size):
    """A cut is the longest piece that has so many events and so many bytes."""
    records = [Record(b"x" * n, "", "", "", 0) for n in sizes]
    skip %= len(records)

    piece, found = Chunk(100, records).cut(100 + skip, events, size)

    expected = []
    for record in records[skip : skip + events]:
        if sum(len(r.data) for r in [*expected, record]) > size:
            break
        expected.append(record)
    assert piece == expected
    assert found == sum(len(record.data) for record in piece)
    assert Chunk(100, records)[100 + skip] is records[skip]
