"""`bizlog tail` as a function, over a stream that is told what comes."""

from __future__ import annotations

import _thread
import io
import re
import sys

import pytest

from bizlog.cli import main, tail
from bizlog.cli.errors import CommandError
from bizlog.cli.streams import Message, Span

URL = "kafka://host:1/topic"


class Told:
    """
    A stream that gives what it is told, then ticks for a second each.

    Attributes:
        batches: What comes; a callable is called, and gives what comes.
        starts: Where the reader began.
        closed: How often it was closed.
        now: Seconds.
    """

    name = URL

    def __init__(self):
        self.trouble = None
        self.opened = True
        self.batches = []
        self.starts = None
        self.closed = 0
        self.now = 0.0

    def spans(self):
        return [Span("0", 5, 9), Span("1", 0, 0)]

    def read(self, starts):
        self.starts = starts
        for batch in self.batches:
            yield batch() if callable(batch) else batch
        while True:
            self.now += 1
            yield []

    def close(self):
        self.closed += 1


@pytest.fixture
def stream(monkeypatch):
    """Have all URLs lead to this stream, and time be its own."""
    told = Told()
    asked = []
    monkeypatch.setattr(tail, "open_stream", lambda *words: asked.append(words) or told)
    told.asked = asked
    real = tail.Tail

    def with_clock(*args, **options):
        return real(*args, **options, clock=lambda: told.now)

    monkeypatch.setattr(tail, "Tail", with_clock)
    return told


@pytest.fixture
def batch(make_event):
    """Make a batch of one message with events of these numbers."""
    return lambda *numbers: [Message("0", 5, b"\n".join(map(make_event, numbers)))]


def printed(capsys):
    """Read the numbers that were printed."""
    return [int(n) for n in re.findall(r'"sequence":(\d+)', capsys.readouterr().out)]


def test_events_are_printed_as_they_come(stream, batch, make_event, capsys):
    """Byte for byte, a line each, until so many were printed."""
    stream.batches = [batch(1), [], batch(2, 3), batch(4)]
    assert main(["tail", URL, "--limit", "2"]) == 0
    assert capsys.readouterr().out.encode() == b"".join(
        make_event(number) + b"\n" for number in (1, 2)
    )
    assert stream.closed == 1
    assert stream.asked == [(URL, None)]


def test_the_limit_counts_what_is_printed(stream, batch, make_event, capsys):
    """Not what is left out by type or condition."""
    stream.batches = [batch(1, 2), [Message("1", 0, make_event(3, "a.b"))], batch(4, 5)]
    words = ["--limit", "2", "--type", "order.*", "--where", "sequence >= 2"]
    assert main(["tail", URL, *words]) == 0
    assert printed(capsys) == [2, 4]


def test_silence_ends_it(stream, batch, capsys):
    """So many seconds after the last message, wanted or not; ticks are none."""
    stream.batches = [batch(1), [], [Message("0", 6, b"foreign")]]
    assert main(["tail", URL, "--idle", "3"]) == 0
    assert stream.now == 3
    assert printed(capsys) == [1]


def test_silence_counts_when_all_is_open(stream):
    """Connecting takes its time."""

    def open_late():
        stream.now, stream.opened = 50.0, True
        return []

    def connecting():
        stream.now = 40.0
        return []

    stream.opened = False
    stream.batches = [connecting, open_late]
    assert main(["tail", URL, "--idle", "20"]) == 0
    assert stream.now == 60


def test_the_end_of_a_partition_is_no_message(stream):
    """A broker's word for it neither prints nor keeps awake."""
    stream.batches = [lambda: setattr(stream, "now", 2.0) or [Message("0", 9, None)]]
    assert main(["tail", URL, "--idle", "2"]) == 0
    assert stream.now == 2


@pytest.mark.parametrize(
    ("words", "starts"),
    [([], [9, 0]), (["--from", "latest"], [9, 0]), (["--from", "earliest"], [5, 0])],
)
def test_where_it_begins(stream, words, starts):
    """At the end of each partition, as it is now, or at its oldest message."""
    assert main(["tail", URL, "--idle", "1", *words]) == 0
    assert list(stream.starts.values()) == starts


def test_a_time_to_begin_with(stream):
    """The same for all partitions, in UTC."""
    words = ["--from", "2026-11-23T10:00:00+02:00", "--group", "mine"]
    assert main(["tail", URL, "--idle", "1", *words]) == 0
    found = {start.isoformat() for start in stream.starts.values()}
    assert found == {"2026-11-23T08:00:00+00:00"}
    assert stream.asked == [(URL, "mine")]


def test_what_is_no_event_is_told_and_counted(
    stream, batch, make_event, make_letter, capsys
):
    """The first at once with its place and no content, all of them at the end."""
    hostile = make_event(1)[:-1] + b',"x":1e999999}'
    stream.batches = [
        [Message("0", 5, b"secret"), Message("1", 0, b"")],
        [Message("1", 1, make_letter(make_event(9))), Message("1", 2, hostile)],
        batch(2),
    ]
    assert main(["tail", URL, "--limit", "1"]) == 0
    captured = capsys.readouterr()
    assert '"sequence":2' in captured.out
    assert len(captured.out.splitlines()) == 1
    first, last = captured.err.splitlines()
    assert first.startswith(f"bizlog: note: no event of bizlog's: {URL}/0@5: no whole")
    assert last == "bizlog: 4 messages left out"


def test_trouble_is_told_once_each_time(stream, capsys):
    """When it begins, and again when it comes again."""

    def trouble(text):
        return lambda: setattr(stream, "trouble", text) or []

    stream.batches = [trouble(text) for text in ("a", "a", None, "a", "b")]
    assert main(["tail", URL, "--idle", "1"]) == 0
    notes = [f"bizlog: note: {URL}: {text}; trying on" for text in "aab"]
    assert capsys.readouterr().err.splitlines() == notes


def test_ctrl_c_ends_it_in_order(stream, batch, capsys):
    """What has come is printed, connections are closed, and the code is 130."""
    stream.batches = [lambda: _thread.interrupt_main() or batch(1), batch(2)]
    assert main(["tail", URL]) == 130
    assert printed(capsys) == [1]
    assert stream.closed == 1


def test_a_stream_that_breaks_is_an_error(stream, batch, capsys):
    """Code 2, in one line, and connections are closed."""

    def fail():
        raise CommandError("it broke")

    stream.batches = [batch(1), fail]
    assert main(["tail", URL]) == 2
    assert capsys.readouterr().err == "bizlog: error: it broke\n"
    assert stream.closed == 1


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_terminals_show_events_to_people(stream, batch, words, monkeypatch):
    """A line like the console sink's; JSON if asked."""
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    stream.batches = [batch(1)]
    assert main(["tail", URL, "--limit", "1", *words]) == 0
    line = terminal.getvalue()
    assert line.startswith("{" if words else "10:00:01.000 order.placed")
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [(BrokenPipeError(32, "x"), 1), (OSError(5, "x"), 2), (OSError(9, "x"), 2)],
)
def test_a_reader_that_is_gone_ends_it(stream, batch, error, code, monkeypatch):
    """`| head` is no error; another fault of the output is one."""

    class Gone(io.StringIO):
        def write(self, _):
            raise error

        def fileno(self):
            return self.own.fileno()

    with open("out", "w") as own:  # noqa: PTH123  # main points it elsewhere
        monkeypatch.setattr(sys, "stdout", gone := Gone())
        gone.own = own
        stream.batches = [batch(1)]
        assert main(["tail", URL]) == code
    assert stream.closed == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["file:events"], "expected eventhub://NAMESPACE/HUB or kafka://"),
        ([URL, "--from", "soon"], "--from 'soon'"),
        ([URL, "--where", "("], "--where"),
        ([URL, "--limit", "0"], "at least 1"),
        ([URL, "--idle", "0"], "above 0"),
        ([URL, "--idle", "nan"], "above 0"),
        ([], "SOURCE"),
    ],
)
def test_wrong_arguments_end_with_2(words, message, capsys):
    """Each is explained before anything is connected."""
    assert main(["tail", *words]) == 2
    assert message in capsys.readouterr().err
