"""What messages of hubs and topics hold, and where that stands."""

from __future__ import annotations

import argparse

import pytest

from bizlog.cli.entries import BadLine, EventLine, LetterLine
from bizlog.cli.errors import CommandError
from bizlog.cli.streams import (
    LINES_IN_MESSAGE,
    Message,
    add_group,
    entries_of,
    is_stream,
    name_of,
    open_stream,
)


def entries(body, number=7):
    """Read a message of the partition `p`."""
    return list(entries_of("p", Message("0", number, body)))


def test_an_event_alone_has_the_place_of_its_message(make_event):
    """Partition and number name it; its bytes stay."""
    [entry] = entries(make_event(1))
    assert isinstance(entry, EventLine)
    assert entry.record.data == make_event(1)
    assert str(entry.place) == "p@7"
    assert entry.place.line == 8 * LINES_IN_MESSAGE


def test_events_that_share_a_message_have_a_place_each(make_event, make_letter):
    """Lines count from 1, empty ones too; the last has that of the whole message."""
    body = b"\n".join([make_event(1), b"", make_letter(make_event(2)), b"broken"])
    found = entries(body, number=0)
    assert [type(entry) for entry in found] == [EventLine, LetterLine, BadLine]
    assert [str(entry.place) for entry in found] == ["p@0 line 1", "p@0 line 3", "p@0"]
    assert [entry.place.line for entry in found] == [1, 3, LINES_IN_MESSAGE]


def test_positions_grow_with_messages_and_lines(make_event):
    """So one number says how far a partition was read."""
    body = b"\r\n".join([make_event(1), make_event(2)])
    lines = [e.place.line for number in (8, 9) for e in entries(body, number)]
    assert lines == sorted(set(lines))
    assert all(entry.record.data[-1:] == b"}" for entry in entries(body))


@pytest.mark.parametrize("body", [b"", None, b"\n\n"])
def test_a_message_without_anything_is_one_bad_line(body):
    """It is said to be empty."""
    [entry] = entries(body)
    assert str(entry) == "p@7: the message is empty"


def test_a_message_of_others_is_one_bad_line():
    """However many lines it has; the reason is that of the first."""
    [entry] = entries(b'{\n  "some": "thing"\n}')
    assert isinstance(entry, BadLine)
    assert str(entry).startswith("p@7: no whole JSON object")


@pytest.mark.parametrize(
    ("word", "stream"),
    [
        ("eventhub://host/hub", True),
        ("eventhub:", True),
        ("kafka://host:1/topic?tls=false", True),
        ("kafka", False),
        ("./kafka:x", False),
        ("file:events", False),
        ("events.jsonl", False),
    ],
)
def test_streams_are_known_by_their_scheme(word, stream):
    """All other words are paths."""
    assert is_stream(word) is stream


def test_names_have_no_options():
    """They stand in messages and in the state of a replay."""
    assert name_of("kafka://host:1/topic/?ca_file=x") == "kafka://host:1/topic"


def test_what_cannot_be_read_is_refused():
    """Other URLs, and groups where there are none."""
    with pytest.raises(CommandError, match="file:x: expected eventhub://NAMESPACE/HUB"):
        open_stream("file:x")
    with pytest.raises(CommandError, match="Kafka is read without a group"):
        open_stream("kafka://host:1/topic", "mine")


def test_the_group_is_an_option():
    """Without it there is none."""
    parser = argparse.ArgumentParser()
    add_group(parser)
    assert parser.parse_args([]).group is None
    assert parser.parse_args(["--group", "mine"]).group == "mine"
