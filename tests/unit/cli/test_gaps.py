"""`bizlog gaps` as a function: what it says and its exit codes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from bizlog.cli import main
from bizlog.delivery.marks import Mark


def gaps(*words):
    """Run `bizlog gaps`."""
    return main(["gaps", *map(str, words)])


def test_a_whole_sequence_is_in_order(write_lines, make_event, capsys):
    """Spread over files, in any order of the files: nothing is missing, the code is 0."""
    write_lines("events/1.jsonl", *map(make_event, [2, 4, 6]))
    packed = write_lines("events/2.jsonl.gz")
    packed.write_bytes(gzip.compress(b"\n".join(map(make_event, [1, 3, 5]))))
    assert gaps("events") == 0
    captured = capsys.readouterr()
    assert "producer producer-1: 6 events, numbers 1 to 6" in captured.out
    assert (
        "6 events of 1 producer: 0 missing, 0 doubled, 0 out of order" in captured.out
    )
    assert captured.err == ""


def test_what_is_missing_doubled_or_late_is_named(write_lines, make_event, capsys):
    """Numbers and places are told, for each producer; the code is 1."""
    write_lines("a.jsonl", *map(make_event, [3, 2, 3, 7]))
    write_lines("b.jsonl", make_event(2, producer_id="producer-2"))
    assert gaps("a.jsonl", "b.jsonl") == 1
    out = capsys.readouterr().out
    assert "missing 4: 1; 4 to 6" in out
    assert "doubled 1: 3 at a.jsonl:3" in out
    assert "out of order 1: 2 at a.jsonl:2" in out
    assert "producer producer-2: 1 event, numbers 2 to 2\n  missing 1: 1" in out
    assert "4 events of 2 producers: 5 missing, 1 doubled, 1 out of order" in out


def test_out_of_order_alone_is_no_fault(write_lines, make_event):
    """Threads may be overtaken: nothing is lost, the code is 0."""
    assert gaps(write_lines("a.jsonl", *map(make_event, [2, 1, 3]))) == 0


def test_what_a_killed_process_lost_at_its_end_is_named(
    write_lines, make_event, own_folder, capsys
):
    """Its journal folder, named beside the events, says how far it had counted."""
    write_lines("events/a.jsonl", *map(make_event, [1, 2]))
    (own_folder / "journal").mkdir()
    mark = Mark(own_folder / "journal", "producer-1")
    mark.open()
    mark.cells[0] = 5
    assert gaps("events", "journal") == 0  # it lives: these may be on their way

    mark.leave_to_parent()
    assert gaps("events") == 0
    capsys.readouterr()
    assert gaps("events", "journal") == 1
    assert "missing 3: 3 to 5" in capsys.readouterr().out
    assert gaps("events", mark.path) == 1


def test_a_journal_folder_without_anything_is_noted(
    write_lines, make_event, own_folder, capsys
):
    """That is how it looks when nothing was lost: the events are judged all the same."""
    write_lines("events/a.jsonl", make_event(1))
    (own_folder / "journal").mkdir()
    assert gaps("events", "journal") == 0
    assert capsys.readouterr().err == "bizlog: note: journal holds no events\n"
    assert gaps("journal") == 2


@pytest.mark.parametrize(("options", "code"), [((), 1), (("--partial",), 0)])
def test_a_process_of_which_nothing_arrived_is_named(own_folder, capsys, options, code):
    """A folder of nothing but marks is enough; a part of the files says nothing."""
    mark = Mark(own_folder, "producer-1")
    mark.open()
    mark.cells[0] = 5
    mark.leave_to_parent()
    assert gaps(".", *options) == code
    out = capsys.readouterr().out
    assert "producer producer-1: 0 events, numbers none to 5" in out
    assert ("missing 5: 1 to 5" in out) is (code == 1)


def test_the_dead_letters_account_for_events(
    write_lines, make_event, make_letter, capsys
):
    """Named beside the events, what was refused is not missing."""
    write_lines("events/a.jsonl", *map(make_event, [1, 3]))
    write_lines("dead/dead-letters-p.jsonl", make_letter(make_event(2)))
    assert gaps("events") == 1
    assert gaps("events", "dead") == 0
    assert "in the dead letters only 1" in capsys.readouterr().out


def test_dead_letters_alone(write_lines, make_event, make_letter, capsys):
    """A producer without any event in the files is told as such."""
    write_lines("a.jsonl", make_letter(make_event(1)))
    assert gaps("a.jsonl") == 0
    assert "producer-1: 0 events, numbers none to 1" in capsys.readouterr().out


def test_a_part_begins_where_it_begins(write_lines, make_event):
    """With --partial, what is before the first number is elsewhere."""
    path = write_lines("a.jsonl", *map(make_event, [5, 6]))
    assert gaps(path) == 1
    assert gaps(path, "--partial") == 0


def test_json_has_everything(write_lines, make_event, capsys):
    """One object, with all ranges, for programs."""
    write_lines("events/a.jsonl", *map(make_event, range(2, 100, 2)), b"broken")
    write_lines("events/.b.jsonl.part")
    assert gaps("events", "--json") == 1
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    [producer] = told["producers"]
    assert producer["missing_ranges"] == [[n, n] for n in range(1, 99, 2)]
    assert (producer["events"], producer["first"], producer["last"]) == (49, 2, 98)
    assert (told["bad_lines"], told["unfinished_files"]) == (1, 1)
    assert "1 unfinished file left out" in captured.err
    assert "a.jsonl:50" in captured.err


def test_many_ranges_are_cut_in_the_text(write_lines, make_event, capsys):
    """Twenty are shown; --json has the rest."""
    path = write_lines("a.jsonl", *map(make_event, range(2, 100, 2)))
    assert gaps(path) == 1
    assert "; 39; and 29 ranges more (--json)" in capsys.readouterr().out


def test_events_of_other_programs_are_counted(write_lines, capsys):
    """Without producer and number there is nothing to say about gaps."""
    bare = b'{"event_id":"1","event_type":"a","event_time":"2026-11-23T10:00:00Z"}'
    assert gaps(write_lines("a.jsonl", bare)) == 0
    assert "and 1 event without producer_id" in capsys.readouterr().out


def test_damage_is_a_fault(write_lines, make_event, capsys):
    """A file that cannot be read to its end: the code is 1."""
    path = write_lines("a.jsonl.gz")
    path.write_bytes(gzip.compress(make_event(1) + b"\n")[:-6])
    assert gaps(path) == 1
    assert "damaged after line 1" in capsys.readouterr().err


def test_a_path_that_is_not_there_ends_with_2(capsys):
    """The error names it."""
    assert gaps(Path("none")) == 2
    assert "none: cannot be read" in capsys.readouterr().err


def test_help_explains_what_a_gap_means(capsys):
    """Dropped, lost, refused or elsewhere: compare with the ledger."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "100")
        assert gaps("--help") == 0
    assert "The ledger" in capsys.readouterr().out
