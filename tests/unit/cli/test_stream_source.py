"""A partition as a source: where it begins, where it ends, and what it says."""

from __future__ import annotations

import datetime as dt

import pytest

from bizlog.cli import sources
from bizlog.cli.errors import CommandError
from bizlog.cli.sources import Sources
from bizlog.cli.stream_source import CLOCKS, PATIENCE_SECONDS, StreamSource, sources_of
from bizlog.cli.streams import LINES_IN_MESSAGE, Message, Span

NOW = dt.datetime(2026, 11, 23, 10, tzinfo=dt.UTC)


class Recorded:
    """
    A stream that gives what it is told, then ticks, each of which takes ten seconds.

    Attributes:
        starts: Where readers began.
        closed: How many readers were closed.
        now: Seconds.
    """

    name = "kafka://host:1/topic"
    opened = True

    def __init__(self, *spans, batches=()):
        self.trouble = None
        self.starts = []
        self.closed = 0
        self.now = 0.0
        self.told = list(spans)
        self._batches = batches

    def spans(self):
        return self.told

    def read(self, starts):
        self.starts.append(starts)
        try:
            yield from self._batches
            while True:
                self.now += 10
                yield []
        finally:
            self.closed += 1

    def close(self):
        self.closed += 100


@pytest.fixture
def message(make_event):
    """Make a message with events of these numbers."""

    def make(number, *events):
        return Message("0", number, b"\n".join(map(make_event, events)))

    return make


def source_of(stream, span):
    return StreamSource(stream, span, lambda: stream.now)


def sequences(entries):
    return [entry.record.sequence for entry in entries]


def test_it_ends_where_the_partition_ended(message):
    """What came later is left out, in the same batch too; the reader is closed."""
    span = Span("0", 5, 8)
    batches = [[message(5, 1)], [message(6, 2), message(7, 3), message(8, 4)]]
    stream = Recorded(span, batches=batches)
    [source] = sources_of(stream)
    assert (source.path, source.size) == ("kafka://host:1/topic/0", 3)
    assert source.read_bytes == 0
    assert sequences(source.entries()) == [1, 2, 3]
    assert source.read_bytes == 3
    assert (stream.starts, stream.closed) == ([{"0": 5}], 1)
    assert source.damage is None


def test_an_empty_partition_is_not_read():
    """There is nothing to wait for."""
    stream = Recorded(span := Span("0", 4, 4))
    assert list(source_of(stream, span).entries()) == []
    assert not stream.starts


def test_the_end_may_be_told_without_a_message(message):
    """What is not there (compacted, or a mark of a transaction) is not waited for."""
    span = Span("0", 0, 9)
    stream = Recorded(span, batches=[[message(0, 1), Message("0", 9, None)]])
    assert sequences(source_of(stream, span).entries()) == [1]
    assert stream.now == 0


def test_reading_goes_on_in_the_middle_of_a_message(message):
    """The message is read again, without the lines that are settled."""
    span = Span("0", 0, 2)
    stream = Recorded(span, batches=[[message(0, 1, 2, 3), message(1, 4)]])
    found = list(source_of(stream, span).entries())
    assert sequences(found) == [1, 2, 3, 4]
    for at, entry in enumerate(found, 1):
        after = entry.place.line
        assert sequences(source_of(stream, span).entries(after)) == [1, 2, 3, 4][at:]


def test_it_begins_at_the_message_that_was_settled_last(message):
    """And not at the oldest one, or at a time."""
    span = Span("0", 0, 9)
    stream = Recorded(span, batches=[[message(8, 1)]])
    source = source_of(stream, span)
    source.since = NOW.isoformat()
    assert sequences(source.entries(7 * LINES_IN_MESSAGE + 2)) == [1]
    assert stream.starts == [{"0": 7}]
    assert source.damage is None


def test_a_partition_that_is_settled_is_not_read():
    """The last line of a message stands for all of it."""
    stream = Recorded(span := Span("0", 0, 9))
    source = source_of(stream, span)
    assert list(source.entries(9 * LINES_IN_MESSAGE)) == []
    assert not stream.starts
    assert source.read_bytes == 9


def test_messages_that_are_gone_meanwhile_are_told(message):
    """Retention took what was still to be read: said, and read on."""
    span = Span("0", 20, 21)
    stream = Recorded(span, batches=[[message(20, 1)]])
    source = source_of(stream, span)
    assert sequences(source.entries(7 * LINES_IN_MESSAGE + 2)) == [1]
    assert source.damage == (
        "kafka://host:1/topic/0: 12 messages from 8 on are no longer kept there"
    )
    assert stream.starts == [{"0": 20}]


def test_a_time_that_matters_is_where_it_begins(message):
    """A while before it, since clocks differ."""
    span = Span("0", 0, 1, NOW)
    stream = Recorded(span, batches=[[message(0, 1)]])
    source = source_of(stream, span)
    source.since = "2026-11-23T10:00:00.000000Z"
    assert sequences(source.entries()) == [1]
    assert stream.starts == [{"0": NOW - CLOCKS}]


def test_a_partition_that_ended_before_the_time_is_not_read():
    """It would never give anything."""
    stream = Recorded(span := Span("0", 0, 1, NOW))
    source = source_of(stream, span)
    source.since = (NOW + CLOCKS + CLOCKS).isoformat()
    assert list(source.entries()) == []
    assert not stream.starts
    assert source.read_bytes == 1


def test_silence_is_a_fault_where_there_is_more(message):
    """After a while it asks; the error has the trouble that is known."""
    span = Span("0", 0, 2)
    stream = Recorded(span, batches=[[message(0, 1)]])
    stream.trouble = "broker down"
    entries = source_of(stream, span).entries()
    assert next(entries).record.sequence == 1
    with pytest.raises(CommandError, match=r"gave nothing for 30 s: broker down$"):
        next(entries)
    assert PATIENCE_SECONDS < stream.now < 2 * PATIENCE_SECONDS
    assert stream.closed == 1


def test_silence_is_the_end_where_nothing_is_left(message):
    """Retention has taken the rest."""
    span = Span("0", 0, 2)
    stream = Recorded(span, batches=[[message(0, 1)]])
    stream.told = [Span("0", 2, 2)]
    assert sequences(source_of(stream, span).entries()) == [1]


def test_a_slow_taker_is_no_silence(message):
    """Time that passes between two events is not the stream's."""
    span = Span("0", 0, 2)
    stream = Recorded(span, batches=[[message(0, 1)], [], [message(1, 2)]])
    entries = source_of(stream, span).entries()
    next(entries)
    stream.now += 2 * PATIENCE_SECONDS
    assert sequences(entries) == [2]


def test_it_can_be_stopped(message):
    """At the next tick it ends, and is not read to its end."""
    span = Span("0", 0, 9)
    stream = Recorded(span, batches=[[message(0, 1)]])
    source = source_of(stream, span)
    entries = source.entries()
    next(entries)
    source.stop()
    assert list(entries) == []
    assert source.read_bytes == 1


def test_sources_hold_files_and_partitions(
    monkeypatch, write_lines, make_event, message
):
    """Files first; each stream once; what is done with all partitions, and the end."""
    stream = Recorded(Span("0", 0, 1), Span("1", 0, 4), batches=[[message(0, 2)]])
    opened = []
    monkeypatch.setattr(
        sources, "open_stream", lambda *words: opened.append(words) or stream
    )
    path = write_lines("a.jsonl", make_event(1))
    with Sources([stream.name, path, stream.name], "mine") as found:
        assert opened == [(stream.name, "mine")]
        assert [str(each.path) for each in found.files] == [
            str(path),
            f"{stream.name}/0",
            f"{stream.name}/1",
        ]
        found.begin_with("2026-11-23T10:00:00.000000Z")
        assert {each.since for each in found.files[1:]} == {
            "2026-11-23T10:00:00.000000Z"
        }
        assert sequences(found.files[1].entries()) == [2]
        assert 0 < found.fraction < 1
        found.stop()
        assert list(found.files[2].entries()) == []
    assert stream.closed == 102
    with pytest.raises(CommandError, match="--group is for Event Hubs"):
        Sources([path], "mine")
