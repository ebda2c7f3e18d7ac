"""What a line holds: an event, a dead letter, or neither; never a value in a message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bizlog.cli.entries import (
    BadLine,
    BadLines,
    EventLine,
    LetterLine,
    Place,
    read_entry,
)

PLACE = Place(Path("events.jsonl"), 7)


def test_an_event_keeps_its_bytes(make_event):
    """The record is the line, byte for byte, with the envelope read out of it."""
    line = make_event(4711).replace(
        b'"event_source"', b'"p":0.10000000000000000000001,"s"'
    )
    entry = read_entry(line, PLACE)
    assert isinstance(entry, EventLine)
    assert entry.record.data is line
    assert entry.record.event_id.endswith("4711")
    assert (entry.record.event_type, entry.record.sequence) == ("order.placed", 4711)
    assert entry.record.event_time.startswith("2026-11-23T10:")
    assert (entry.producer_id, entry.place) == ("producer-1", PLACE)


def test_another_program_need_not_number_its_events():
    """Id, type and time make an event; producer and number may be absent."""
    line = b'{"event_id":"1","event_type":"a.b","event_time":"2026-11-23T10:00:00Z"}'
    entry = read_entry(line, PLACE)
    assert isinstance(entry, EventLine)
    assert (entry.producer_id, entry.record.sequence) == (None, 0)


@pytest.mark.parametrize("as_text", [False, True])
def test_a_letter_holds_an_event(make_event, make_letter, as_text):
    """The event inside is found, as JSON and as base64, with its own bytes."""
    event = make_event(3)
    entry = read_entry(make_letter(event, as_text=as_text), PLACE)
    assert isinstance(entry, LetterLine)
    assert entry.event is not None
    assert entry.event.record.data == event
    assert entry.event_type == "order.placed"
    assert entry.letter.reason == "HTTP 503"
    assert entry.can_be_replayed


def test_an_event_that_was_never_accepted_cannot_be_replayed(make_event, make_letter):
    """A letter without a sink is of an event that breaks its schema."""
    entry = read_entry(make_letter(make_event(3), sink=None), PLACE)
    assert isinstance(entry, LetterLine)
    assert entry.event is not None
    assert not entry.can_be_replayed


@pytest.mark.parametrize(
    ("record", "event_type"),
    [
        ({"event_type": "a.b", "event_source": "x"}, "a.b"),
        ({"event_type": 5}, None),
        (None, None),
        ([1], None),
        ("no base64!", None),
        ("YWJj", None),
        ("\u00e9", None),
    ],
)
def test_a_letter_without_a_whole_event_is_still_a_letter(
    make_event, make_letter, record, event_type
):
    """Whatever stands in `record`: the letter is read, its event is None."""
    line = json.loads(make_letter(make_event(3)))
    entry = read_entry(json.dumps({**line, "record": record}).encode(), PLACE)
    assert isinstance(entry, LetterLine)
    assert (entry.event, entry.event_type) == (None, event_type)
    assert not entry.can_be_replayed


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "no whole JSON object"),
        (b'{"event_id":"secret', "no whole JSON object"),
        (b"secret", "no whole JSON object"),
        (b"\xff\xfe", "no whole JSON object"),
        (b"[1]", "object"),
        (b"{}", "no event_id, event_type, event_time"),
        (b'{"event_id":"secret","event_type":"secret"}', "no event_time"),
        (b'{"event_id":5,"event_type":"a"}', "$.event_id: Expected `str"),
        (b'{"event_id":"a","sequence":"secret"}', "$.sequence"),
        (b'{"reason":"x","record":{}}', "missing required field"),
        (b'{"reason":5,"record":{}}', "$.reason"),
    ],
)
def test_what_is_neither_is_told_without_values(line, reason):
    """The reason names fields and types; the place names file and line."""
    entry = read_entry(line, PLACE)
    assert isinstance(entry, BadLine)
    assert reason in str(entry)
    assert str(entry).startswith("events.jsonl:7: ")
    assert "secret" not in str(entry)


@given(st.binary(max_size=200) | st.text(max_size=50).map(str.encode))
def test_no_bytes_make_it_raise(line):
    """Any line is an event, a letter or a bad line."""
    assert isinstance(read_entry(line, PLACE), EventLine | LetterLine | BadLine)


def test_the_first_bad_lines_are_told_and_all_are_counted():
    """Five are shown, the rest is a number; nothing is said where all is well."""
    lines = BadLines()
    assert lines.told() == []
    lines.add(BadLine(PLACE, "cut"))
    assert lines.told() == ["1 line could not be read:", "  events.jsonl:7: cut"]
    for _ in range(1_500):
        lines.add(BadLine(PLACE, "cut"))
    told = lines.told()
    assert told[0] == "1,501 lines could not be read:"
    assert len(told) == 7
    assert told[-1] == "  and 1,496 more"
