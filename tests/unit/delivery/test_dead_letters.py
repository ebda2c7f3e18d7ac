"""The dead-letter folder: its format, its modes, and whole lines or none."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import threading
import time

import msgspec
import pytest

from bizlog.delivery.dead_letters import DeadLetter, DeadLetterFolder, wall_clock


def make_letter(name="a", record=b'{"n":1}', **fields):
    """Make a dead letter with every field set."""
    values = {
        "reason": "refused",
        "path": "$.n",
        "sink": "file",
        "attempts": 1,
        "first_at": "2026-11-23T10:15:30.123456Z",
        "last_at": "2026-11-23T10:15:31.123456Z",
        "event_id": name,
        **fields,
    }
    return DeadLetter(record=msgspec.Raw(record), **values)


@pytest.fixture
def usual_umask():
    """Create files under the usual umask."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_one_json_object_a_line_in_designs_format(folder):
    """Exactly DESIGN's keys, in its order, with the record as JSON."""
    folder.write([make_letter(), make_letter("b", path=None, sink=None, event_id=None)])

    first, second = folder.path.read_bytes().splitlines()

    assert list(json.loads(first).items()) == [
        ("reason", "refused"),
        ("path", "$.n"),
        ("sink", "file"),
        ("attempts", 1),
        ("first_at", "2026-11-23T10:15:30.123456Z"),
        ("last_at", "2026-11-23T10:15:31.123456Z"),
        ("event_id", "a"),
        ("record", {"n": 1}),
    ]
    absent = json.loads(second)
    assert (absent["path"], absent["sink"], absent["event_id"]) == (None, None, None)


def test_the_record_is_kept_byte_for_byte(folder):
    """A number that no float can hold survives: nothing is decoded on the way."""
    folder.write([make_letter(record=b'{"p":0.1000000000000000000001}')])

    assert b'{"p":0.1000000000000000000001}' in folder.path.read_bytes()


def test_file_0600_in_a_folder_0700(folder, usual_umask):
    """Nobody else may read what was refused."""
    folder.write([make_letter()])

    assert stat.S_IMODE(folder.path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o600


def test_nothing_is_created_before_the_first_letter(folder):
    """A service that loses nothing leaves no folder behind."""
    assert not folder.path.parent.exists()


def test_letters_are_appended(folder, letters):
    """A second write keeps the first."""
    folder.write([make_letter("a")])
    folder.write([make_letter("b"), make_letter("c")])

    assert [letter["event_id"] for letter in letters()] == ["a", "b", "c"]


def test_each_producer_has_a_file_of_its_own(tmp_path):
    """Two processes never share a file, so neither can damage the other's lines."""
    first, second = (DeadLetterFolder(tmp_path, name) for name in ("p1", "p2"))

    first.write([make_letter()])
    second.write([make_letter()])

    assert first.path != second.path
    assert first.path.exists() and second.path.exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    """Below a regular file no folder can be, not even for root."""
    (tmp_path / "file").write_text("")
    folder = DeadLetterFolder(tmp_path / "file" / "dead", "p")

    with pytest.raises(OSError):
        folder.write([make_letter()])


def test_a_symbolic_link_is_not_followed(folder, tmp_path):
    """A link planted in place of the file redirects nothing."""
    target = tmp_path / "target"
    target.write_text("precious")
    folder.path.parent.mkdir()
    folder.path.symlink_to(target)

    with pytest.raises(OSError):
        folder.write([make_letter()])
    assert target.read_text() == "precious"


def test_short_writes_are_completed(folder, letters, monkeypatch):
    """The kernel may take less than it was given; the rest follows."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data[:7])))

    folder.write([make_letter("a"), make_letter("b")])

    assert [letter["event_id"] for letter in letters()] == ["a", "b"]


@pytest.mark.parametrize("good_writes", [0, 1, 3])
def test_a_write_that_fails_halfway_is_taken_back(
    folder, letters, monkeypatch, good_writes
):
    """On a full disk what was there stays, and of the new letters nothing does."""
    folder.write([make_letter("kept")])
    real, calls = os.write, []

    def full(descriptor, data):
        calls.append(1)
        if len(calls) > good_writes:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, bytes(data[:10]))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            folder.write([make_letter("a"), make_letter("b")])
    assert [letter["event_id"] for letter in letters()] == ["kept"]

    folder.write([make_letter("later")])
    assert [letter["event_id"] for letter in letters()] == ["kept", "later"]


def test_what_one_write_takes_back_is_only_its_own(folder, letters, monkeypatch):
    """Two lanes at once, one write fails: the other's letters survive."""
    real, failing, inside = os.write, threading.local(), threading.Event()

    def write(descriptor, data):
        if getattr(failing, "now", False):
            inside.set()
            time.sleep(0.1)  # time for the other one to overtake, if it could
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    errors = []

    def fail():
        failing.now = True
        try:
            folder.write([make_letter("bad")])
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=fail)
    thread.start()
    assert inside.wait(10)
    folder.write([make_letter("good")])
    thread.join()

    assert len(errors) == 1
    assert [letter["event_id"] for letter in letters()] == ["good"]


def test_writes_from_many_threads_never_mix_lines(folder, letters, monkeypatch):
    """Every line is whole, even when the kernel takes a few bytes at a time."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data[:50])))
    threads = [
        threading.Thread(
            target=lambda k=k: [
                folder.write([make_letter(f"{k}-{i}")]) for i in range(20)
            ]
        )
        for k in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({letter["event_id"] for letter in letters()}) == 120


def test_no_descriptor_stays_open(folder, monkeypatch):
    """Neither a write nor a failed one keeps the file open."""
    opened, closed = [], []
    real_open, real_close = os.open, os.close
    monkeypatch.setattr(
        os, "open", lambda *a, **k: opened.append(real_open(*a, **k)) or opened[-1]
    )
    monkeypatch.setattr(os, "close", lambda fd: closed.append(fd) or real_close(fd))
    folder.write([make_letter()])

    def fail(*_):
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(OSError):
        folder.write([make_letter()])

    assert len(opened) == 2
    assert opened == closed


def test_the_time_is_rfc_3339_in_utc_with_microseconds():
    """As every other time that bizlog writes."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", wall_clock())
