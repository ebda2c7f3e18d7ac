"""Where events are read from: files and folders, in an order that repeats."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from bizlog.cli import sources as module
from bizlog.cli.entries import BadLine, EventLine, LetterLine
from bizlog.cli.errors import CommandError
from bizlog.cli.sources import Sources


def numbers(sources):
    """Read all events' numbers, in the order they come."""
    return [
        entry.record.sequence
        for source in sources.files
        for entry in source.entries()
        if isinstance(entry, EventLine)
    ]


def test_a_folder_is_searched_at_any_depth(write_lines, own_folder, make_event):
    """Plain and compressed files at any depth, in the order of their names."""
    write_lines("events/type=a/20260102.jsonl", make_event(3), make_event(4))
    write_lines("events/type=b/20260101.jsonl", make_event(1))
    packed = write_lines("events/20260101b.jsonl.gz")
    packed.write_bytes(gzip.compress(make_event(2) + b"\n"))
    write_lines("events/README.md", b"no events")
    sources = Sources([own_folder / "events"])
    assert sources.fraction < 1
    assert numbers(sources) == [1, 2, 3, 4]
    assert sources.fraction == 1.0
    assert sources.notes() == sources.damages == []


def test_a_file_is_read_once_however_often_it_is_named(write_lines, make_event):
    """Named itself and with its folder, its events come once."""
    path = write_lines("events/a.jsonl", make_event(1))
    assert numbers(Sources([path, path.parent])) == [1]


def test_unfinished_files_are_left_out_and_told(write_lines, own_folder, make_event):
    """A hidden part belongs to its writer: it is named, and how it is completed."""
    write_lines("events/a.jsonl", make_event(1))
    write_lines("events/.b.jsonl.part", make_event(2))
    write_lines("events/.hidden.jsonl", make_event(3))
    sources = Sources([own_folder / "events"])
    assert numbers(sources) == [1]
    [note] = sources.notes()
    assert "1 unfinished file left out" in note
    assert ".b.jsonl.part" in note


def test_any_name_will_do_for_a_file_that_is_named(write_lines, make_event):
    """Only folders are searched by name; a file is taken as it is."""
    assert numbers(Sources([write_lines("events.txt", make_event(1))])) == [1]


def test_lines_after_a_place_and_damage(write_lines, make_event, make_letter):
    """Reading may begin behind a line; empty lines are none; entries are mixed."""
    path = write_lines(
        "mixed.jsonl", make_event(1), b"", make_letter(make_event(2)), b"broken"
    )
    [source] = Sources([path]).files
    assert [type(e) for e in source.entries()] == [EventLine, LetterLine, BadLine]
    assert [entry.place.line for entry in source.entries(1)] == [3, 4]


def test_damaged_files_are_told(own_folder, make_event):
    """A cut file gives what it has, and its damage is kept for the end."""
    path = own_folder / "a.jsonl.gz"
    path.write_bytes(gzip.compress(make_event(1) + b"\n")[:-6])
    sources = Sources([path])
    assert numbers(sources) == [1]
    assert "damaged after line 1" in sources.damages[0]


@pytest.mark.parametrize("name", ["none", "none.jsonl"])
def test_a_path_that_is_not_there_is_named(name):
    """An error that names the path."""
    with pytest.raises(CommandError, match=f"{name}: cannot be read: No such file"):
        Sources([Path(name)])


def test_a_folder_without_events_says_what_it_looked_for(own_folder):
    """An empty folder is an error, for it is nearly always a mistake."""
    with pytest.raises(CommandError, match=r"holds no events: expected .*\.jsonl\.zst"):
        Sources([own_folder])


def test_a_folder_that_cannot_be_searched_is_named(own_folder, monkeypatch):
    """Missing permission is an error, not an empty folder."""

    def refuse(_, onerror):
        onerror(PermissionError(13, "Permission denied", "secret-place"))
        return iter(())

    monkeypatch.setattr("os.walk", refuse)
    with pytest.raises(CommandError, match="secret-place: cannot be read: Permission"):
        Sources([own_folder])


def test_a_file_that_goes_between_two_looks_is_named(
    write_lines, make_event, monkeypatch
):
    """Drained or replayed at this very moment: an error of ours, no traceback."""
    path = write_lines("a.jsonl", make_event(1))
    look = module.first_bytes

    def look_and_remove(path):
        found = look(path)
        path.unlink()
        return found

    monkeypatch.setattr(module, "first_bytes", look_and_remove)
    with pytest.raises(CommandError, match=r"a\.jsonl: cannot be read: No such file"):
        Sources([path])
