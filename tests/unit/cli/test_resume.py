"""How far a replay has come, in a file."""

from __future__ import annotations

import pytest

from bizlog.cli.errors import CommandError
from bizlog.cli.resume import State, fingerprint, load, save
from bizlog.cli.selection import Query

STATE = State("me", Query(start="2026", types=("a.*",)), {"/x/a.jsonl": 7}, events=5)


def test_what_is_saved_is_loaded(own_folder):
    """The same state comes back, and no other file stays behind."""
    path = own_folder / "state.json"
    assert load(path, "me") is None
    save(path, STATE)
    save(path, STATE)
    assert load(path, "me") == STATE
    assert list(own_folder.iterdir()) == [path]


def test_the_state_of_another_command_is_not_taken(tmp_path):
    """Another query or sink would skip what it never sent."""
    path = tmp_path / "state.json"
    save(path, STATE)
    with pytest.raises(CommandError, match=r"belongs to another replay.*--from-start"):
        load(path, "you")


@pytest.mark.parametrize("content", [b"", b"{", b'{"command":5}', b"\xff"])
def test_another_file_is_not_taken_for_a_state(tmp_path, content):
    """What cannot be read is named, with the way out."""
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(CommandError, match=r"is no state of a replay.*--state"):
        load(path, "me")


def test_a_place_that_cannot_be_read_or_written_is_named(tmp_path):
    """A folder in place of the file: errors of ours, both ways."""
    with pytest.raises(CommandError, match="cannot be read: Is a directory"):
        load(tmp_path, "me")
    with pytest.raises(CommandError, match=r"cannot be written: .*--state"):
        save(tmp_path / "none" / "state.json", STATE)


def test_fingerprints_tell_queries_apart():
    """The same parts give the same name, others another one."""
    assert fingerprint("a", Query(), ["b"]) == fingerprint("a", Query(), ["b"])
    assert fingerprint("a", ["b"]) != fingerprint("ab", [""])
    assert len(fingerprint("a")) == 32
