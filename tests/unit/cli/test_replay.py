"""`bizlog replay` as a function: what it sends, what it says, where it goes on."""

from __future__ import annotations

import _thread
import asyncio
import json
import re
import threading
import time
from pathlib import Path

import pytest

from bizlog.cli import main, resume
from bizlog.cli import replay as module
from bizlog.cli.streams import LINES_IN_MESSAGE, Message, Span


def replay(*words):
    """Run `bizlog replay` into the outlet."""
    return main(["replay", *map(str, words), "--sink", "outlet:"])


@pytest.fixture
def events(write_lines, make_event):
    """Write a thousand events into two files of a folder."""
    write_lines("events/1.jsonl", *map(make_event, range(1, 601)))
    write_lines("events/2.jsonl", *map(make_event, range(601, 1_001)))
    return Path("events")


def test_every_event_is_sent_as_it_is(events, outlet, make_event, capsys):
    """Ids and bytes are those of the file; the ledger is closed, no state stays."""
    assert replay(events) == 0
    assert outlet.sequences == list(range(1, 1_001))
    assert outlet.batches[0].records[0].data == make_event(1)
    out = capsys.readouterr().out
    assert re.search(r"^outlet +1,000 +1,000 .*closed$", out, re.MULTILINE)
    assert "1,000 events in" in out
    assert not list(Path().glob(".bizlog-replay*"))


def test_the_same_replay_names_its_batches_alike(
    events, outlet, write_lines, make_event
):
    """A sink that honours idempotency keys takes them once; other events, other names."""
    replay(events)
    names = [batch.name for batch in outlet.batches]
    outlet.batches.clear()
    replay(events)
    assert [batch.name for batch in outlet.batches] == names
    outlet.batches.clear()
    replay(events, "--type", "order.*")
    assert not {batch.name for batch in outlet.batches} & set(names)
    outlet.batches.clear()
    write_lines("events/1.jsonl", *map(make_event, range(3, 601)))
    replay(events)
    assert not {batch.name for batch in outlet.batches} & set(names)


def test_filters_and_their_counts(write_lines, make_event, outlet, capsys):
    """What is not asked for, and what came before, is counted and not sent."""
    path = write_lines(
        "a.jsonl",
        make_event(1, order_total=5),
        make_event(2, order_total=50),
        make_event(2, order_total=50),
        make_event(3, "product.viewed"),
    )
    words = ["--type", "order.*", "--where", "order_total >= 10", "--unique"]
    assert replay(path, *words) == 0
    assert outlet.sequences == [2]
    out = capsys.readouterr().out
    assert "left out, not asked for: 2" in out
    assert "left out, same event_id: 1" in out


def test_letters_are_replayed_where_the_event_was_accepted(
    write_lines, make_event, make_letter, outlet, capsys
):
    """Those of events that break their schema stay, and are told."""
    path = write_lines(
        "dead.jsonl", make_letter(make_event(1)), make_letter(make_event(2), sink=None)
    )
    assert replay(path) == 1
    assert outlet.sequences == [1]
    err = capsys.readouterr().err
    assert "1 dead letter left out: the events were never accepted" in err


def test_lines_that_cannot_be_read_are_named(write_lines, make_event, outlet, capsys):
    """The others are sent; file and line of the bad ones are told; the code is 1."""
    path = write_lines("a.jsonl", make_event(1), b"broken", make_event(2))
    write_lines(".b.jsonl.part")
    assert replay(path, path.parent) == 1
    assert outlet.sequences == [1, 2]
    err = capsys.readouterr().err
    assert "1 line could not be read:\n" in err
    assert "a.jsonl:2: no whole JSON object" in err
    assert "1 unfinished file left out" in err


def test_a_dry_run_sends_nothing(events, outlet, make_event, write_lines, capsys):
    """It counts by type and says from when to when; a sink need not be named."""
    write_lines("events/3.jsonl", make_event(5_000, "product.viewed"))
    assert main(["replay", str(events), "--dry-run", "--where", "sequence > 990"]) == 0
    out = capsys.readouterr().out
    assert "would send 11 events" in out
    assert "from 2026-11-23T10:16:31.000000Z to 2026-11-23T10:" in out
    assert "order.placed  10" in out
    assert "product.viewed  1" in out
    assert "left out, not asked for: 990" in out
    assert not outlet.batches


def test_a_dry_run_over_nothing(write_lines, capsys):
    """An empty file holds nothing to send, which is no error."""
    assert main(["replay", str(write_lines("a.jsonl")), "--dry-run"]) == 0
    assert capsys.readouterr().out == "would send 0 events, 0 bytes\n"


def test_refused_events_go_to_the_dead_letters(events, outlet, make_event, capsys):
    """They are in the folder that is named, and the code is 1."""
    outlet.refused = {json.loads(make_event(3))["event_id"]}
    assert replay(events, "--dead-letters", "mine") == 1
    err = capsys.readouterr().err
    [path] = Path("mine").iterdir()
    assert f"1 event refused: they are in {path}" in err
    assert b"refused here" in path.read_bytes()
    assert not list(Path().glob(".bizlog-replay*"))


def test_dead_letters_that_cannot_be_written_are_a_loss_that_is_told(
    events, outlet, make_event, capsys
):
    """A file in place of the folder: dropped, counted, said, code 1."""
    outlet.refused = {json.loads(make_event(3))["event_id"]}
    Path("mine").write_text("")
    assert replay(events, "--dead-letters", "mine") == 1
    captured = capsys.readouterr()
    assert "dead_letters_failed 1" in captured.out
    assert "1 event refused that is in no dead letter" in captured.err


def interrupt_at(outlet, sequence):
    """Press Ctrl-C while the batch with this event is under way."""

    def answer(batch):
        if any(record.sequence == sequence for record in batch.records):
            _thread.interrupt_main()

    outlet.answer = answer


def test_ctrl_c_and_the_same_command_again(events, outlet, capsys):
    """Stopped in the middle and repeated: every event once, in order, then no state."""
    interrupt_at(outlet, 350)
    assert replay(events) == 130
    captured = capsys.readouterr()
    assert "the same command goes on" in captured.err
    first = list(outlet.sequences)
    assert 350 <= len(first) < 1_000
    [state] = Path().glob(".bizlog-replay-*.json")
    names = {batch.name for batch in outlet.batches}

    outlet.answer = lambda _: None
    outlet.batches.clear()
    assert replay(events) == 0
    err = capsys.readouterr().err
    assert f"going on after {len(first):,} events" in err
    assert first + outlet.sequences == list(range(1, 1_001))
    assert not names & {batch.name for batch in outlet.batches}
    assert not state.exists()


def test_an_interrupted_replay_can_begin_anew(events, outlet, capsys):
    """With --from-start the state is not read."""
    interrupt_at(outlet, 350)
    assert replay(events) == 130
    outlet.answer = lambda _: None
    outlet.batches.clear()
    assert replay(events, "--from-start") == 0
    assert outlet.sequences == list(range(1, 1_001))


def test_a_relative_time_is_kept_over_an_interruption(events, outlet, monkeypatch):
    """Two hours ago is, for the second run, two hours before the first."""
    queries = []
    reader = module.Reader
    monkeypatch.setattr(module, "Reader", lambda *a: queries.append(a[1]) or reader(*a))
    interrupt_at(outlet, 350)
    words = [events, "--from", "999w", "--state", "here.json"]
    assert replay(*words) == 130
    outlet.answer = lambda _: None
    assert replay(*words) == 0
    assert queries[0] == queries[1]
    assert sorted(outlet.sequences) == list(range(1, 1_001))


def test_ids_are_remembered_over_an_interruption(write_lines, make_event, outlet):
    """With --unique, what was sent before Ctrl-C is not sent again after it."""
    path = write_lines("a.jsonl", *map(make_event, [*range(1, 801), *range(1, 801)]))
    interrupt_at(outlet, 350)
    assert replay(path, "--unique") == 130
    outlet.answer = lambda _: None
    assert replay(path, "--unique") == 0
    assert outlet.sequences == list(range(1, 801))


def test_ctrl_c_twice_ends_at_once_and_keeps_the_state(events, outlet, capsys):
    """A sink that hangs holds nobody: the second Ctrl-C is the end, code 130."""

    def hang(batch):
        if batch.first < 200:
            return None
        _thread.interrupt_main()
        asyncio.get_running_loop().call_later(0.3, _thread.interrupt_main)
        return asyncio.sleep(3_600)

    outlet.answer = hang
    assert replay(events) == 130
    assert "interrupted" in capsys.readouterr().err
    [state] = Path().glob(".bizlog-replay-*.json")
    assert json.loads(state.read_bytes())["events"] == 200


def test_the_state_is_kept_during_the_run(events, outlet, monkeypatch):
    """A replay that is killed goes on from what was settled a moment before."""
    monkeypatch.setattr(module, "SAVE_SECONDS", 0.0)
    saved = []
    save = resume.save
    monkeypatch.setattr(
        resume, "save", lambda path, state: saved.append(state) or save(path, state)
    )
    assert replay(events) == 0
    assert saved
    assert [state.events for state in saved] == sorted(s.events for s in saved)


def test_a_source_that_breaks_on_the_way_keeps_the_state(events, outlet, capsys):
    """A file that vanishes ends with an error; what was settled is kept."""
    outlet.answer = lambda _: Path("events/2.jsonl").unlink(missing_ok=True)
    assert replay(events) == 2
    assert "2.jsonl: cannot be read" in capsys.readouterr().err
    assert list(Path().glob(".bizlog-replay-*.json"))


def test_a_sink_that_cannot_flush_is_not_complete(events, outlet, capsys):
    """Sent, but not known to be durable: code 1, and the state stays."""
    outlet.flush_error = OSError("disk")
    assert replay(events) == 1
    assert "not complete" in capsys.readouterr().err
    assert list(Path().glob(".bizlog-replay-*.json"))


def test_the_rate_is_kept(events, outlet, monkeypatch):
    """At one a second the last of a thousand events is due after a thousand seconds."""
    pauses = []

    async def pause(_, seconds):
        pauses.append(seconds)

    monkeypatch.setattr("bizlog.cli.conveyor.Conveyor.pause", pause)
    assert replay(events, "--rate", "1/s") == 0
    assert len(pauses) == 1_000
    assert 900 < pauses[-1] <= 1_000
    assert outlet.sequences == list(range(1, 1_001))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x", "--sink", "outlet:"], "x: cannot be read"),
        ([".", "--sink", "nosuch:"], "nosuch"),
        (["."], "--sink is missing"),
        ([], "SOURCE"),
        ([".", "--rate", "0"], "events a second"),
        ([".", "--rate", "fast"], "events a second"),
        ([".", "--rate", "inf/s"], "events a second"),
        ([".", "--where", "("], "--where"),
        ([".", "--from", "soon"], "--from"),
    ],
)
def test_wrong_arguments_end_with_2(words, message, write_lines, make_event, capsys):
    """Each is explained in a line, and nothing is sent."""
    write_lines("a.jsonl", make_event(1))
    assert main(["replay", *words]) == 2
    assert message in capsys.readouterr().err


def test_help_teaches_the_conditions(capsys):
    """`--help` shows examples and the language of --where."""
    assert main(["replay", "--help"]) == 0
    out = capsys.readouterr().out
    assert "custom_properties.voucher" in out
    assert "bizlog replay ./bizlog-events --from 3d" in out


def test_a_sink_that_stalls_ends_the_replay(events, outlet, monkeypatch, capsys):
    """Without progress for minutes: code 1, said so, and the state stays."""
    monkeypatch.setattr("bizlog.cli.conveyor.STALL_SECONDS", 1.5)
    outlet.answer = lambda batch: asyncio.sleep(3_600) if batch.first else None
    assert replay(events) == 1
    err = capsys.readouterr().err
    assert "the sink took nothing for 1.5 s" in err
    assert "not complete" in err
    [state] = Path().glob(".bizlog-replay-*.json")
    assert json.loads(state.read_bytes())["events"] == 100


class Silent:
    """
    A topic whose second message never comes.

    Attributes:
        closed: What was closed.
    """

    name = "kafka://host:1/topic"
    trouble = None
    opened = True

    def __init__(self, event):
        self.closed = []
        self._event = event

    def spans(self):
        return [Span("0", 0, 2)]

    def read(self, _):
        try:
            yield [Message("0", 0, self._event)]
            while True:
                time.sleep(0.01)
                yield []
        finally:
            self.closed.append("reader")

    def close(self):
        self.closed.append("stream")


def test_ctrl_c_while_a_topic_is_silent(outlet, make_event, monkeypatch, capsys):
    """The wait for the network ends at once, in order, and what came is kept."""
    stream = Silent(make_event(1))
    monkeypatch.setattr("bizlog.cli.sources.open_stream", lambda *_: stream)
    timer = threading.Timer(0.5, _thread.interrupt_main)
    timer.start()
    assert replay(stream.name) == 130
    timer.join()
    assert outlet.sequences == [1]
    assert "the same command goes on" in capsys.readouterr().err
    assert stream.closed == ["reader", "stream"]
    [state] = Path().glob(".bizlog-replay-*.json")
    assert json.loads(state.read_bytes())["lines"] == {
        f"{stream.name}/0": LINES_IN_MESSAGE
    }


def test_the_sink_works_while_a_topic_is_silent(outlet, make_event, monkeypatch):
    """The wait for the network does not hold up what is under way."""
    stream = Silent(make_event(1))
    monkeypatch.setattr("bizlog.cli.sources.open_stream", lambda *_: stream)
    monkeypatch.setattr(module, "RUN_EVENTS", 1)
    outlet.max_events = 1
    outlet.answer = lambda _: asyncio.sleep(0.05, _thread.interrupt_main())
    assert replay(stream.name) == 130
    assert outlet.sequences == [1]


def test_ctrl_c_while_connections_close(outlet, make_event, monkeypatch):
    """All was sent: the wait ends, and the code says what the ledger does."""

    def press():
        raise KeyboardInterrupt

    stream = Silent(make_event(1))
    stream.spans = lambda: [Span("0", 0, 1)]
    stream.close = press
    monkeypatch.setattr("bizlog.cli.sources.open_stream", lambda *_: stream)
    assert replay(stream.name) == 0
    assert outlet.sequences == [1]
