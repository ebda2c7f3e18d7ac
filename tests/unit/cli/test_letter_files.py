"""The files of a dead-letter folder: rewritten as a whole, beside a living writer."""

from __future__ import annotations

import gzip
import os
import stat

import msgspec
import pytest

from bizlog.cli.entries import LetterLine
from bizlog.cli.errors import CommandError
from bizlog.cli.letter_files import LetterFolder, Rewriting, read_letters
from bizlog.delivery.dead_letters import DeadLetter, DeadLetterFolder

FILE = "dead/dead-letters-p.jsonl"


@pytest.fixture
def path(write_lines, make_event, make_letter):
    """Write a file of three letters and a broken line."""
    letters = [make_letter(make_event(number)) for number in (1, 2, 3)]
    return write_lines(FILE, *letters, b"broken")


def files(path):
    """List what is in the folder, except the lock."""
    return sorted(p.name for p in path.parent.iterdir() if p.suffix != ".lock")


def test_a_folder_lists_its_letter_files(path, write_lines):
    """Only files of letters, by name; the lock and foreign files are none."""
    write_lines("dead/dead-letters-a.jsonl")
    write_lines("dead/notes.txt")
    folder = LetterFolder(path.parent)
    with folder.held():
        assert [p.name for p in folder.files()] == [
            "dead-letters-a.jsonl",
            "dead-letters-p.jsonl",
        ]


def test_a_folder_that_is_not_there_is_explained(tmp_path):
    """The error says what that may mean; a file in its place is another error."""
    with pytest.raises(CommandError, match="no such folder, so either nothing was"):
        LetterFolder(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match="file: cannot be read"):
        LetterFolder(tmp_path / "file")


def test_one_command_at_a_time(path):
    """A second one is told to wait; after the first it may."""
    folder = LetterFolder(path.parent)
    with folder.held(), pytest.raises(CommandError, match="another replay or drop"):
        LetterFolder(path.parent).held().__enter__()
    with folder.held():
        pass


def test_a_folder_that_cannot_be_written_is_named(path, monkeypatch):
    """The lock cannot be made: an error, and nothing has changed."""

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CommandError, match="Permission denied"):
        LetterFolder(path.parent).held().__enter__()


def test_what_a_dead_command_left_is_removed(path):
    """Half a new file goes; the old one is still there."""
    left = path.with_name(".dead-letters-p-taken-1.jsonl.part")
    left.write_text("half")
    with LetterFolder(path.parent).held():
        assert not left.exists()
        assert path.exists()


def test_every_line_comes_with_what_it_holds(path):
    """Letters and broken lines, each with its bytes."""
    found = list(read_letters(path))
    assert [isinstance(entry, LetterLine) for _, entry in found] == [True] * 3 + [False]
    assert found[3][0] == b"broken"


def test_what_is_kept_replaces_the_file(path):
    """The new file has exactly the lines kept, under another name, for the owner only."""
    lines = path.read_bytes().splitlines()
    with Rewriting(path) as new:
        assert not path.exists()
        new.keep(lines[1])
        new.keep(lines[3])
    assert new.path.read_bytes().splitlines() == [lines[1], lines[3]]
    assert files(path) == [new.path.name]
    assert "-taken-" in new.path.name
    assert stat.S_IMODE(new.path.stat().st_mode) == 0o600


def test_a_taken_file_keeps_its_name(path):
    """It has no writer: rewritten again, it is not renamed once more."""
    with Rewriting(path) as new:
        new.keep(b"{}")
    with Rewriting(new.path) as again:
        again.keep(b"{}")
    assert files(path) == [new.path.name]


def test_a_file_of_which_nothing_is_kept_is_gone(path):
    """No empty file stays behind."""
    with Rewriting(path):
        pass
    assert files(path) == []


def test_after_an_error_everything_is_there(path):
    """Whatever goes wrong in between: all letters stand in the file still."""
    before = path.read_bytes()
    new = Rewriting(path)

    def fail():
        with new:
            new.keep(b"only this")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert files(path) == [new.path.name]
    assert new.path.read_bytes() == before


def test_letters_that_come_meanwhile_stay(path):
    """A living writer begins a new file; nothing of it is touched."""
    writer = DeadLetterFolder(path.parent, "p")
    with Rewriting(path) as new:
        letter = DeadLetter("new", None, "x", 1, "", "", "new", msgspec.Raw(b"{}"))
        writer.write([letter])
        new.keep(b"{}")
    assert files(path) == [new.path.name, "dead-letters-p.jsonl"]
    assert b'"new"' in path.read_bytes()


def test_half_a_file_must_not_pass_for_the_whole(path):
    """Where reading breaks off there is an error, so that nothing is rewritten."""
    path.write_bytes(gzip.compress(path.read_bytes())[:-6])
    with pytest.raises(CommandError, match="damaged after line"):
        list(read_letters(path))
