"""ConsoleSink prints one harmless line an event, for people or for programs."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import re
import subprocess
import sys
import unicodedata

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bizlog.exceptions import (
    ConfigurationError,
    PermanentSinkError,
    RetryableSinkError,
)
from bizlog.sinks import Batch, Record, make_sink
from bizlog_handlers.console import ConsoleSink

TIME = "2026-11-23T10:15:30.123456Z"


class Screen(io.TextIOWrapper):
    """A stream in memory that may say it is a terminal."""

    def __init__(self, *, terminal=True, encoding="utf-8"):
        super().__init__(io.BytesIO(), encoding=encoding, newline="\n")
        self._terminal = terminal

    def isatty(self):
        return self._terminal

    @property
    def text(self):
        return self.buffer.getvalue().decode(self.encoding)


def record_of(**event):
    """Encode an event as the chain does."""
    event = {"event_type": "order.placed", "event_time": TIME} | event
    return Record(orjson.dumps(event), "id", str(event["event_type"]), TIME, 1)


def show(*records, terminal=True, encoding="utf-8", **options):
    """Print records to a screen and return what it shows."""
    screen = Screen(terminal=terminal, encoding=encoding)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        batch = Batch("j", 1, len(records), records)
        asyncio.run(ConsoleSink(**options).deliver(batch))
    return screen.text


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """Leave decisions about colour to the tests."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


def harmful(text):
    """Find characters that move a terminal, in other words than the code's."""
    return [
        char
        for char in text
        if unicodedata.category(char) in {"Cc", "Zl", "Zp", "Cs"}
        or unicodedata.bidirectional(char)
        in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    ]


keys = st.text(st.characters(codec="utf-8"), max_size=20)
texts = st.one_of(
    st.text(st.characters(codec="utf-8")),
    st.text("\r\n\t\x1b[]31m\x07\\\"'= \x7f\x9b\u2028\u2029\u202e\u2066aé😀"),
)
values = st.recursive(
    st.one_of(texts, st.integers(-5, 5), st.booleans(), st.none()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner),
    max_leaves=5,
)
events = st.dictionaries(
    st.one_of(
        keys, texts, st.sampled_from(["event_source", "user_id", "event_id", "a"])
    ),
    values,
    max_size=6,
)


@given(events, texts, st.sampled_from(["utf-8", "ascii", "cp1252"]))
def test_any_event_is_one_harmless_line_of_text(event, event_type, encoding):
    """No key, value or type breaks the line or reaches the terminal as a control."""
    event = event | {"event_type": event_type, "event_time": event_type}

    text = show(record_of(**event), encoding=encoding, color="never", format="text")

    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert harmful(text[:-1]) == []


@given(events, texts)
def test_colour_adds_nothing_but_colour(event, event_type):
    """Without our own colour codes the line is the uncoloured one."""
    record = record_of(**(event | {"event_type": event_type}))

    coloured = show(record, color="always", format="text")

    assert re.sub(r"\x1b\[\d+m", "", coloured) == show(
        record, color="never", format="text"
    )


@given(events, st.sampled_from(["utf-8", "ascii", "cp1252"]))
def test_any_event_is_one_harmless_line_of_equal_json(event, encoding):
    """What a program parses is the event, what a terminal gets is harmless."""
    record = record_of(**event)

    text = show(record, terminal=False, encoding=encoding)

    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert harmful(text[:-1]) == []
    assert json.loads(text) == json.loads(record.data)


def test_plain_json_is_printed_as_it_was_encoded():
    """ASCII goes through byte by byte, numbers included."""
    data = b'{"event_type":"x","price":9.990,"big":123456789012345678901234567890}'

    assert show(Record(data, "i", "x", TIME, 1), format="json").encode() == data + b"\n"


def test_a_line_for_people():
    """Time, type, source and fields come first, then the ids, UUIDs by their ends."""
    record = record_of(
        event_source="customer-agent",
        event_id="0193a6a0-0000-7000-8000-0123456789ab",
        user_id="u-7",
        environment="production",
        sequence=4711,
        product_name="Contoso Catnip's Friend",
        product_price=9.99,
        ai_assisted=True,
        sku="A-1",
        custom_properties={"a b": [1, "x"]},
    )

    assert show(record, color="never") == (
        "10:15:30.123 order.placed           customer-agent "
        'product_name="Contoso Catnip\'s Friend" product_price=9.99 ai_assisted=true '
        'sku=A-1 custom_properties={"a b":[1,"x"]} user_id=u-7 event_id=..456789ab\n'
    )


def test_a_value_cannot_pose_as_another_field():
    """A text with spaces or `=` stands in quotes, in keys, values, type and source."""
    record = record_of(
        event_type="a b=1", event_source="", key="x user_id=root", **{"k =": "q\"'"}
    )

    text = show(record, color="never")

    assert '"a b=1"' in text
    assert ' "" ' in text
    assert 'key="x user_id=root" "k ="="q\\"\'"' in text


@pytest.mark.parametrize(
    ("event_type", "code"),
    [
        ("product.viewed", 36),
        ("order.placed", 32),
        ("customer.queried", 33),
        ("admin.failed", 35),
        ("ai.completed", 34),
        ("other.thing", 1),
    ],
)
def test_a_family_has_its_colour(event_type, code):
    """The event type is coloured by what stands before its first dot."""
    assert f"\x1b[{code}m{event_type}" in show(record_of(event_type=event_type))


@pytest.mark.parametrize(
    ("options", "environment", "terminal", "expected"),
    [
        ({}, {}, True, True),
        ({}, {"NO_COLOR": "1"}, True, False),
        ({}, {"NO_COLOR": ""}, True, True),
        ({}, {"TERM": "dumb"}, True, False),
        ({"color": "never"}, {}, True, False),
        ({"color": "always"}, {"NO_COLOR": "1"}, True, True),
        ({"color": "always", "format": "text"}, {}, False, True),
        ({"format": "text"}, {}, False, False),
    ],
)
def test_when_lines_are_coloured(options, environment, terminal, expected, monkeypatch):
    """A terminal without NO_COLOR is coloured; an explicit option has the last word."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert ("\x1b[" in show(record_of(), terminal=terminal, **options)) == expected


@pytest.mark.parametrize(
    ("chosen", "terminal", "is_json"),
    [
        ("auto", True, False),
        ("auto", False, True),
        ("json", True, True),
        ("text", False, False),
    ],
)
def test_json_when_piped(chosen, terminal, is_json):
    """People get text on a terminal, programs get JSON, and either can be asked for."""
    text = show(record_of(), terminal=terminal, format=chosen)

    assert text.startswith("{") == is_json


def test_the_stream_is_looked_up_at_each_write(capsys, make_batch):
    """Redirection of sys.stdout works, also after the sink was made."""
    sink = make_sink("console:")

    asyncio.run(sink.deliver(make_batch("a", "b")))

    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["event_type"] for line in lines] == ["a", "b"]


def test_the_url_names_the_stream(capsys, make_batch):
    """`console:stderr` prints there and nowhere else."""
    asyncio.run(make_sink("console:stderr?format=text").deliver(make_batch("a")))

    captured = capsys.readouterr()
    assert (captured.out, captured.err.split()[1]) == ("", "a")


def test_an_unknown_option_is_explained():
    """A wrong value is refused when the sink is made."""
    with pytest.raises(ConfigurationError, match="color"):
        make_sink("console:?color=maybe")


def test_events_do_not_wait_for_company():
    """Somebody is watching: an event is printed at once."""
    assert ConsoleSink().flush_interval == 0.0


def test_a_stream_of_unknown_encoding_gets_ascii():
    """Where nothing is known of a stream it gets characters all streams can print."""

    class Nameless(Screen):
        @property
        def encoding(self):
            return "no-such-encoding"

        @property
        def text(self):
            return self.buffer.getvalue().decode()

    screen = Nameless()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        batch = Batch("j", 1, 1, [record_of(a="é😀")])
        asyncio.run(ConsoleSink(format="json").deliver(batch))

    assert r'"a":"\u00e9\ud83d\ude00"' in screen.text


@pytest.mark.parametrize("stream", [None, "closed"])
def test_a_closed_stream_is_permanent(stream, monkeypatch, make_batch):
    """What is closed does not open again."""
    screen = Screen() if stream else None
    if screen:
        screen.close()
    monkeypatch.setattr(sys, "stdout", screen)

    with pytest.raises(PermanentSinkError, match="stdout is closed"):
        asyncio.run(ConsoleSink().deliver(make_batch("a")))


@pytest.mark.parametrize(
    ("failure", "expected", "words"),
    [
        (BrokenPipeError(errno.EPIPE, "x"), PermanentSinkError, "EPIPE"),
        (OSError(errno.EBADF, "x"), PermanentSinkError, "EBADF"),
        (ValueError("I/O operation on closed file"), PermanentSinkError, "closed"),
        (OSError(errno.ENOSPC, "full"), RetryableSinkError, r"ENOSPC \(full\)"),
        (BlockingIOError(errno.EAGAIN, "x"), RetryableSinkError, "EAGAIN"),
    ],
)
def test_a_failed_write_says_whether_again_helps(
    failure, expected, words, monkeypatch, make_batch
):
    """A reader that left is permanent; a full disk behind a redirection is not."""
    screen = Screen()

    def fail():
        raise failure

    screen.flush = fail
    monkeypatch.setattr(sys, "stdout", screen)

    with pytest.raises(expected, match=words):
        asyncio.run(ConsoleSink().deliver(make_batch("a")))
    del screen.flush


def test_a_real_broken_pipe_is_permanent():
    """`python app.py | head -1` ends in a clear error, not in a traceback."""
    program = """
import asyncio, os, sys
from bizlog.exceptions import PermanentSinkError
from bizlog.sinks import Batch, Record
from bizlog_handlers.console import ConsoleSink
sys.stdin.read()
record = Record(b"{}", "i", "t", "2026", 1)
try:
    asyncio.run(ConsoleSink().deliver(Batch("j", 1, 1, [record])))
except PermanentSinkError as error:
    os.write(2, str(error).encode())
os._exit(0)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    child.stdout.close()
    child.stdout = None
    _, message = child.communicate(b"", timeout=30)

    assert b"cannot print to stdout: EPIPE" in message
