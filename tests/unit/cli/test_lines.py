"""The lines of a file, however it is stored, and of one that is damaged."""

from __future__ import annotations

import gzip
import sys

import pytest
import zstandard

from bizlog.cli.errors import CommandError
from bizlog.cli.lines import LineFile
from bizlog.exceptions import MissingExtraError

LINES = [b"line %d" % number for number in range(20_000)]
TEXT = b"\n".join([*LINES, b""])


def packed(kind, pieces=3):
    """Store the text as several members or frames, as the file sink does."""
    size = len(TEXT) // pieces + 1
    parts = [TEXT[i : i + size] for i in range(0, len(TEXT), size)]
    encode = {
        "plain": bytes,
        "gzip": gzip.compress,
        "zstd": zstandard.ZstdCompressor().compress,
    }[kind]
    return b"".join(encode(part) for part in parts)


@pytest.mark.parametrize("kind", ["plain", "gzip", "zstd"])
def test_lines_are_the_same_however_they_are_stored(tmp_path, kind):
    """Content decides, not the name; every member and frame is read."""
    path = tmp_path / "events.bin"
    path.write_bytes(packed(kind))
    with LineFile(path) as file:
        assert list(file) == LINES
        assert file.number == len(LINES)
        assert file.position == path.stat().st_size
        assert file.damage is None


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_cut_file_gives_what_stands_before_the_damage(tmp_path, kind):
    """Then it says which file is damaged, and after which line."""
    path = tmp_path / "events.bin"
    path.write_bytes(packed(kind)[:-50])
    with LineFile(path) as file:
        found = list(file)
        assert file.damage is not None
        assert f"{path}: damaged after line {len(found):,}" in file.damage
    assert found[: len(LINES) // 2] == LINES[: len(LINES) // 2]


def test_a_spoilt_frame_is_damage(tmp_path):
    """Bytes that are no zstd any more end the reading with a message."""
    data = bytearray(packed("zstd"))
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    path = tmp_path / "events.zst"
    path.write_bytes(data)
    with LineFile(path) as file:
        list(file)
        assert file.damage is not None
        assert "ZstdError" in file.damage


def test_a_zstd_file_may_end_without_a_line_end(tmp_path):
    """The last line counts, as in a plain file."""
    path = tmp_path / "events.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(b"one\ntwo"))
    with LineFile(path) as file:
        assert list(file) == [b"one", b"two"]


def test_what_is_appended_meanwhile_is_left_out(tmp_path):
    """With a size given, a plain file ends there, at a whole line."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"one\ntwo\nthr")
    with LineFile(path, 8) as file:
        assert list(file) == [b"one", b"two"]


def test_the_last_line_needs_no_end(tmp_path):
    """A line without a line end, or with one of Windows, is a line."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"one\r\n\ntwo")
    with LineFile(path) as file:
        assert list(file) == [b"one", b"", b"two"]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    """The error names it and says why."""
    with pytest.raises(
        CommandError, match=r"none\.jsonl: cannot be read: No such file"
    ):
        LineFile(tmp_path / "none.jsonl")
    with pytest.raises(CommandError, match="cannot be read: Is a directory"):
        LineFile(tmp_path)


def test_a_file_that_vanishes_between_two_looks_is_named(tmp_path, monkeypatch):
    """Removed after its kind was seen: an error of ours, no traceback."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"{}\n")
    first_bytes = LineFile.__init__.__globals__["first_bytes"]

    def look_and_remove(path):
        magic = first_bytes(path)
        path.unlink()
        return magic

    monkeypatch.setattr("bizlog.cli.lines.first_bytes", look_and_remove)
    with pytest.raises(CommandError, match="cannot be read"):
        LineFile(path)


def test_zstd_needs_its_package(tmp_path, monkeypatch):
    """Without zstandard the error names the file and how to install it."""
    path = tmp_path / "events.jsonl.zst"
    path.write_bytes(packed("zstd"))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingExtraError, match=r"events\.jsonl\.zst.*pip install"):
        LineFile(path)
