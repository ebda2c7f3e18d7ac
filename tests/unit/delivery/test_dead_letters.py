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

from bizlog.delivery.dead_letters import (
    SCAN_SECONDS,
    DeadLetter,
    DeadLetterFolder,
    take_file,
    wall_clock,
)
from bizlog.testing import ManualClock


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


def limited(tmp_path, max_bytes, name="p"):
    """Make a folder with a limit, and the clock it looks at."""
    clock = ManualClock()
    return DeadLetterFolder(tmp_path / "dead", name, max_bytes, clock), clock


SIZE = len(msgspec.json.encode(make_letter())) + 1


def test_the_folder_has_a_limit_of_its_own(tmp_path):
    """What would exceed it is refused as by a full disk, and nothing of it is kept."""
    folder, _ = limited(tmp_path, 3 * SIZE)
    folder.write([make_letter(), make_letter()])

    with pytest.raises(OSError, match=r"limit of .* bytes.*replay") as caught:
        folder.write([make_letter(), make_letter()])
    assert caught.value.errno == errno.ENOSPC
    folder.write([make_letter()])
    assert len(folder.path.read_bytes()) == 3 * SIZE


def test_the_limit_counts_the_files_of_all_processes(tmp_path):
    """Another producer's letters take room, too; those of later are noticed in time."""
    first, _ = limited(tmp_path, 3 * SIZE, "p1")
    second, clock = limited(tmp_path, 3 * SIZE, "p2")
    second.write([make_letter()])
    first.write([make_letter(), make_letter()])

    clock.advance(SCAN_SECONDS)
    with pytest.raises(OSError, match="limit"):
        second.write([make_letter()])


def test_room_that_was_made_is_used_within_a_second(tmp_path):
    """After a replay has emptied the folder, letters are kept again."""
    folder, clock = limited(tmp_path, SIZE)
    folder.write([make_letter()])
    with pytest.raises(OSError, match="limit"):
        folder.write([make_letter()])

    folder.path.unlink()
    clock.advance(1.0)
    folder.write([make_letter("z")])
    assert b'"z"' in folder.path.read_bytes()


def test_a_folder_that_stays_full_is_not_scanned_at_each_write(tmp_path, monkeypatch):
    """However many letters are refused: one look into the folder a second."""
    folder, _ = limited(tmp_path, SIZE - 1)
    scans = []
    real = os.scandir
    (tmp_path / "dead").mkdir()
    monkeypatch.setattr(os, "scandir", lambda path: scans.append(path) or real(path))

    for _ in range(50):
        with pytest.raises(OSError, match="limit"):
            folder.write([make_letter()])
    assert len(scans) == 1


def test_a_file_can_be_taken_from_a_living_writer(folder, letters, tmp_path):
    """The letters until then are in the taken file, the next ones under the old name."""
    folder.write([make_letter("before")])
    taken = folder.path.with_name("taken.jsonl")

    take_file(folder.path, taken)
    folder.write([make_letter("after")])

    assert b"before" in taken.read_bytes()
    assert [letter["event_id"] for letter in letters()] == ["after"]


def test_a_writer_that_had_opened_the_file_notices_that_it_was_taken(
    folder, letters, monkeypatch
):
    """Renamed between opening and writing: the letter goes where the name leads now."""
    folder.write([make_letter("before")])
    taken = folder.path.with_name("taken.jsonl")
    real = os.open

    def open_and_lose(path, *args):
        descriptor = real(path, *args)
        if path == folder.path and not taken.exists():
            folder.path.rename(taken)
        return descriptor

    monkeypatch.setattr(os, "open", open_and_lose)
    folder.write([make_letter("after")])

    assert b"after" not in taken.read_bytes()
    assert [letter["event_id"] for letter in letters()] == ["after"]


def test_taking_a_file_waits_for_the_write_under_way(folder, monkeypatch):
    """A letter that is being written when the file is taken is in it."""
    folder.write([make_letter("first")])
    taken = folder.path.with_name("taken.jsonl")
    real, inside, go = os.write, threading.Event(), threading.Event()

    def slow(descriptor, data):
        inside.set()
        assert go.wait(20)
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", slow)
    writer = threading.Thread(target=folder.write, args=([make_letter("second")],))
    writer.start()
    assert inside.wait(20)
    taker = threading.Thread(target=take_file, args=(folder.path, taken))
    taker.start()
    taker.join(0.05)
    assert taker.is_alive(), "it waits"
    go.set()
    taker.join(20)
    writer.join(20)

    assert b"second" in taken.read_bytes()


def test_letters_of_a_living_writer_survive_any_number_of_takings(folder, tmp_path):
    """While one thread writes and another takes the file again and again, none is lost."""
    done = threading.Event()

    def take_again_and_again():
        number = 0
        while not done.is_set():
            try:
                take_file(folder.path, folder.path.with_name(f"taken-{number}.jsonl"))
            except FileNotFoundError:
                continue
            number += 1

    taker = threading.Thread(target=take_again_and_again)
    taker.start()
    for number in range(300):
        folder.write([make_letter(f"letter-{number}")])
    done.set()
    taker.join(20)

    kept = [
        json.loads(line)["event_id"]
        for path in folder.path.parent.iterdir()
        for line in path.read_bytes().splitlines()
    ]
    assert sorted(kept) == sorted(f"letter-{number}" for number in range(300))
