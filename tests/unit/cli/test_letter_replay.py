"""`bizlog dead-letters replay`: what was delivered goes, everything else stays."""

from __future__ import annotations

import _thread
import asyncio
import json

import msgspec
import pytest

from bizlog.cli import conveyor, letter_replay, main
from bizlog.delivery.dead_letters import DeadLetter, DeadLetterFolder


@pytest.fixture
def write(write_lines, make_event, make_letter):
    """Write a file with the letters of these numbers."""

    def write_it(numbers, name="a", **fields):
        lines = [make_letter(make_event(n), **fields) for n in numbers]
        return write_lines(f"bizlog-dead-letters/dead-letters-{name}.jsonl", *lines)

    return write_it


def replay(*words):
    """Run `bizlog dead-letters replay` into the outlet."""
    return main(["dead-letters", "replay", "--sink", "outlet:", *words])


def left(path):
    """Read all letters that are in the folder."""
    return [
        json.loads(line)
        for file in sorted(path.parent.glob("dead-letters-*"))
        for line in file.read_bytes().splitlines()
    ]


def test_what_was_delivered_is_removed(write, outlet, make_event, capsys):
    """The events arrive as they are, and no letter stays."""
    path = write([1, 2, 3])
    write([4], name="b")
    assert replay() == 0
    assert outlet.sequences == [1, 2, 3, 4]
    assert outlet.batches[0].records[0].data == make_event(1)
    assert left(path) == []
    captured = capsys.readouterr()
    assert "outlet" in captured.out
    assert "closed" in captured.out
    assert captured.err == ""


def test_letters_may_be_kept(write, outlet):
    """With --keep the file is not touched at all."""
    path = write([1, 2])
    before = path.read_bytes()
    assert replay("--keep") == 0
    assert outlet.sequences == [1, 2]
    assert path.read_bytes() == before


def test_only_what_was_asked_for_is_sent(write, outlet):
    """Other letters stay as they are; files that hold none are left alone."""
    path = write([1, 2])
    other = write([3], name="b", sink="file")
    assert replay("--from-sink", "file") == 0
    assert outlet.sequences == [3]
    assert path.exists()
    assert not other.exists()
    assert [letter["record"]["sequence"] for letter in left(path)] == [1, 2]


def test_what_is_refused_again_stays_with_the_new_reason(write, outlet, capsys):
    """Reason, path, sink and times are the new ones, the attempts add up."""
    path = write([1, 2, 3])
    outlet.refused = {left(path)[1]["event_id"]}
    assert replay() == 1
    [letter] = left(path)
    assert letter["record"]["sequence"] == 2
    assert (letter["reason"], letter["path"]) == ("refused here", "$.order_total")
    assert (letter["sink"], letter["attempts"]) == ("outlet", 3)
    assert letter["first_at"] == "2026-11-23T10:00:00.000000Z"
    assert letter["last_at"] > "2026-11-23T10:00:09.000000Z"
    assert "1 event refused again" in capsys.readouterr().err


def test_what_was_never_accepted_stays_and_is_told(write, outlet, capsys):
    """It breaks its schema: sending it as it is would help nobody."""
    path = write([1])
    write([2], name="b", sink=None)
    assert replay() == 1
    assert outlet.sequences == [1]
    assert [letter["record"]["sequence"] for letter in left(path)] == [2]
    err = capsys.readouterr().err
    assert "1 letter left alone: the events were never accepted" in err
    assert "drop --from-sink none" in err


def test_broken_lines_stay_and_are_told(write, outlet, capsys):
    """The letters around them are replayed; file and line are named."""
    path = write([1, 2])
    path.write_bytes(b"broken\n\n" + path.read_bytes())
    assert replay() == 1
    assert outlet.sequences == [1, 2]
    [file] = path.parent.glob("dead-letters-*")
    assert file.read_bytes() == b"broken\n"
    assert "dead-letters-a.jsonl:1: no whole JSON" in capsys.readouterr().err


def test_portions_keep_memory_flat(write, outlet, monkeypatch):
    """A large file is worked off in portions, by events and by bytes."""
    path = write(range(1, 31))
    outlet.refused = {letter["event_id"] for letter in left(path)[::10]}
    monkeypatch.setattr(letter_replay, "PORTION_EVENTS", 7)
    assert replay("--keep") == 1
    assert [len(batch.records) for batch in outlet.batches] == [7, 7, 7, 7, 2]
    outlet.batches.clear()
    monkeypatch.setattr(letter_replay, "PORTION_BYTES", 1_000)
    assert replay() == 1
    assert max(len(batch.records) for batch in outlet.batches) < 7
    assert [letter["record"]["sequence"] for letter in left(path)] == [1, 11, 21]


def test_nothing_is_removed_before_the_sink_has_it(write, outlet, capsys):
    """A sink that cannot flush: the letters stay, byte for byte."""
    path = write([1, 2])
    before = path.read_bytes()
    outlet.flush_error = OSError("disk")
    assert replay() == 1
    [file] = path.parent.glob("dead-letters-*")
    assert file.read_bytes() == before
    assert "2 events may or may not have been delivered" in capsys.readouterr().err


def test_letters_that_come_meanwhile_stay(write, outlet):
    """A living service goes on writing its file; not one of its letters is lost."""
    path = write([1, 2], name="p")
    writer = DeadLetterFolder(path.parent, "p")
    letter = DeadLetter("new", None, "x", 1, "", "", "new", outlet_record())
    outlet.answer = lambda _: writer.write([letter])
    assert replay() == 0
    assert [letter["event_id"] for letter in left(path)] == ["new"]


def outlet_record():
    """Make any event for a letter."""
    return msgspec.Raw(b'{"event_type":"a"}')


def test_ctrl_c_keeps_what_was_not_delivered(write, outlet, monkeypatch, capsys):
    """The portion under way is finished, the rest stays; the code is 130."""
    monkeypatch.setattr(letter_replay, "PORTION_EVENTS", 5)
    path = write(range(1, 21))
    write([21], name="b")
    outlet.answer = lambda b: _thread.interrupt_main() if b.first == 5 else None
    assert replay() == 130
    sent = outlet.sequences
    assert sent == list(range(1, 11))
    assert [x["record"]["sequence"] for x in left(path)] == [*range(11, 21), 21]


def test_ctrl_c_while_the_sink_hangs(write, outlet, monkeypatch, capsys):
    """Nobody knows whether the sink has the event: its letter stays."""
    monkeypatch.setattr(conveyor, "STOP_SECONDS", 0.05)
    path = write([1, 2])

    def hang(_):
        _thread.interrupt_main()
        return asyncio.sleep(3_600)

    outlet.answer = hang
    assert replay() == 130
    assert [letter["record"]["sequence"] for letter in left(path)] == [1, 2]
    assert "2 events may or may not" in capsys.readouterr().err


def test_ctrl_c_twice_leaves_the_file_as_it_was(write, outlet):
    """An end in the middle: every letter is there, under the new name."""
    path = write([1, 2])
    before = path.read_bytes()

    def hang(_):
        _thread.interrupt_main()
        asyncio.get_running_loop().call_later(0.3, _thread.interrupt_main)
        return asyncio.sleep(3_600)

    outlet.answer = hang
    assert replay() == 130
    [file] = path.parent.glob("dead-letters-*")
    assert file.read_bytes() == before


def test_the_same_letters_have_the_same_batch_names(write, outlet):
    """A replay that is repeated after a crash repeats its idempotency keys."""
    write([1, 2, 3])
    replay("--keep")
    replay("--keep")
    replay("--keep", "--type", "order.*")
    names = [batch.name for batch in outlet.batches]
    assert names[0] == names[1] != names[2]


def test_two_at_a_time_are_refused(write, outlet, capsys):
    """A second replay while one is at work is told to wait."""
    write([1])
    codes = []
    outlet.answer = lambda _: codes.append(replay())
    assert replay() == 0
    assert codes == [2]
    assert "another replay or drop is at work" in capsys.readouterr().err


def test_an_empty_folder_is_nothing_to_do(write, outlet):
    """Without a letter the ledger is closed at zero."""
    write([1]).unlink()
    assert replay() == 0
    assert outlet.batches == []


def test_a_sink_must_be_named(write, capsys):
    """The error says which option is missing."""
    write([1])
    assert main(["dead-letters", "replay"]) == 2
    assert "--sink" in capsys.readouterr().err


def test_a_sink_that_stalls_ends_the_replay(write, outlet, monkeypatch, capsys):
    """Without progress for minutes: code 1, said so, and every letter stays."""
    monkeypatch.setattr(conveyor, "STALL_SECONDS", 1.5)
    path = write([1, 2])
    write([3], name="b")
    outlet.answer = lambda _: asyncio.sleep(3_600)
    assert replay() == 1
    assert "the sink took nothing for 1.5 s" in capsys.readouterr().err
    assert [letter["record"]["sequence"] for letter in left(path)] == [1, 2, 3]
