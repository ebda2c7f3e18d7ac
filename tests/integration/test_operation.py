"""Operation with the real commands: files, gaps, replay, dead letters, journals."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bizlog.delivery import locks
from bizlog.delivery.journal import LaneState
from bizlog.delivery.sqlite import SqliteJournal
from bizlog.sinks import Record

ROOT = Path(__file__).parents[2]

SERVICE = """
import bizlog
from bizlog.exceptions import PermanentSinkError
from bizlog.sinks import BaseSink, Route
from bizlog_handlers.composite import CompositeSink

class Picky(BaseSink):
    name = "picky"
    max_events = 1
    async def deliver(self, batch):
        raise PermanentSinkError("it takes nothing today")

sinks = CompositeSink("file:events", Route(Picky(), "order.placed"))
bizlog.configure(source="shop", sinks=[sinks], overflow="block", block_timeout=30.0)
log = bizlog.get_logger()
for number in range(1, 3_001):
    name = "order.placed" if number % 100 == 0 else "product.viewed"
    log.info(name, order_id=number, order_total=number)
log.info("order.placed", order_total="not money")
assert bizlog.flush(timeout=30.0)
assert bizlog.shutdown(timeout=30.0)
"""


@pytest.fixture
def folder(tmp_path):
    """Run a service: 3,000 events in files, 30 of them refused by a second sink."""
    run(tmp_path, "-c", SERVICE)
    return tmp_path


def environment():
    """Give a process nothing of our own settings, and this source tree."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("BIZLOG_")}
    kept["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "handlers")))
    return kept


def run(folder, *words, code=0):
    """Run Python in a folder to its end."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *words],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def bizlog(folder, *words, code=0):
    """Run a command."""
    return run(folder, "-m", "bizlog.cli", *words, code=code)


def lines_in(folder):
    """Read all events below a folder, as they stand there, sorted."""
    paths = folder.rglob("*.jsonl*")
    return sorted(line for p in paths for line in p.read_bytes().splitlines())


def test_from_files_to_another_folder(folder):
    """What a service wrote is whole; replayed, it is the same, byte for byte."""
    assert len(lines_in(folder / "events")) == 3_000
    done = bizlog(folder, "gaps", "events")
    assert "3,000 events of 1 producer: 0 missing, 0 doubled" in done.stdout

    done = bizlog(folder, "replay", "events", "--sink", "file:again")
    assert re.search(r"^file +3,000 +3,000 .*closed$", done.stdout, re.MULTILINE)
    assert lines_in(folder / "again") == lines_in(folder / "events")
    bizlog(folder, "gaps", "again")
    done = bizlog(folder, "gaps", "events", "again", code=1)
    assert "0 missing, 3,000 doubled" in done.stdout

    words = ["--type", "order.*", "--where", "order_total > 1500", "--dry-run"]
    done = bizlog(folder, "replay", "again", *words)
    assert "would send 15 events" in done.stdout


def test_a_file_that_is_lost_is_a_gap_that_is_named(folder):
    """Delete the orders: their numbers are missing, and the dead letters have them."""
    for path in folder.glob("events/event_type=order.placed/*/*"):
        path.unlink()
    done = bizlog(folder, "gaps", "events", "--json", code=1)
    [producer] = json.loads(done.stdout)["producers"]
    assert producer["missing_ranges"] == [[n, n] for n in range(100, 3_000, 100)]
    done = bizlog(folder, "gaps", "events", "bizlog-dead-letters")
    assert "in the dead letters only 31" in done.stdout


def test_dead_letters_from_refusal_to_delivery(folder):
    """Seen, sent again, gone; what breaks its schema stays until it is dropped."""
    done = bizlog(folder, "dead-letters", "ls")
    assert "31 letters in 1 file" in done.stdout
    assert re.search(r"30 +picky +order.placed +.*nothing today", done.stdout)
    done = bizlog(folder, "dead-letters", "show", "--from-sink", "none", "--json")
    assert json.loads(done.stdout)["record"]["order_total"] == "not money"

    words = ["replay", "--from-sink", "picky", "--sink", "file:again?partition=flat"]
    done = bizlog(folder, "dead-letters", *words)
    assert re.search(r"^file +30 +30 .*closed$", done.stdout, re.MULTILINE)
    orders = lines_in(folder / "events" / "event_type=order.placed")
    assert lines_in(folder / "again") == orders

    done = bizlog(folder, "dead-letters", "replay", "--sink", "null:", code=1)
    assert "never accepted" in done.stderr
    bizlog(folder, "dead-letters", "drop", "--yes")
    assert list((folder / "bizlog-dead-letters").glob("*.jsonl")) == []


def test_ctrl_c_and_the_same_command_again(folder):
    """The real signal to the real command: state kept, gone on, every event once."""
    words = ["replay", "events", "--sink", "file:again", "--rate", "1000"]
    child = subprocess.Popen(
        [sys.executable, "-m", "bizlog.cli", *words],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not any((folder / "again").rglob("*.part")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 130, out + err
    assert "the same command goes on" in err
    sent = len(lines_in(folder / "again"))
    assert 0 < sent < 3_000
    done = bizlog(folder, *words[:-2], "--rate", "1000")
    assert f"going on after {sent:,} events" in done.stderr
    assert lines_in(folder / "again") == lines_in(folder / "events")
    assert not list(folder.glob(".bizlog-replay-*"))


def test_a_replay_of_dead_letters_that_is_killed_loses_none(tmp_path):
    """Killed at any moment, again and again: each letter is left or was delivered."""
    letters = tmp_path / "dead" / "dead-letters-p.jsonl"
    letters.parent.mkdir()
    ids = [f"id-{number}" for number in range(20_000)]
    letters.write_text("".join(map(letter_of, ids)))
    words = ["dead-letters", "replay", "dead", "--sink", "file:again?partition=flat"]
    # A start takes about a third of a second here, the whole replay a second.
    for seconds in (0.3, 0.4, 0.5, 0.65, 0.8, 1.0):
        child = subprocess.Popen(
            [sys.executable, "-m", "bizlog.cli", *words],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(seconds)
        child.kill()
        child.wait()
        assert {*delivered(tmp_path / "again"), *left(letters.parent)} == set(ids)
    bizlog(tmp_path, *words)
    assert left(letters.parent) == []
    assert set(delivered(tmp_path / "again")) == set(ids)


def letter_of(event_id):
    """Write a dead letter."""
    event = {"event_id": event_id, "event_type": "a.b", "event_time": "2026-11-23"}
    times = {"first_at": "", "last_at": "", "attempts": 1, "path": None}
    letter = {"reason": "no", "sink": "x", "event_id": event_id, "record": event}
    return json.dumps({**letter, **times}) + "\n"


def delivered(folder):
    """Read the ids that have reached a file, finished or not."""
    return [
        json.loads(line)["event_id"]
        for path in folder.rglob("*.jsonl*")
        for line in path.read_bytes().splitlines()
        if line.endswith(b"}")
    ]


def left(folder):
    """Read the ids of the letters that are left."""
    return [
        json.loads(line)["event_id"]
        for path in folder.glob("dead-letters-*.jsonl")
        for line in path.read_bytes().splitlines()
    ]


def test_a_journal_of_a_dead_process(folder):
    """Status shows what waits; a drain delivers it and removes the file."""
    records = [record_of(line) for line in lines_in(folder / "events")]
    records.sort(key=lambda record: record.sequence)
    path = folder / "journal" / "j1.db"
    path.parent.mkdir()
    journal = SqliteJournal(path, journal_id="j1")
    for start in range(0, len(records), 100):
        journal.append(records[start : start + 100])
    journal.seal("http", LaneState(1_000))
    journal.close()

    lock = locks.take(path.with_suffix(".lock"))
    assert lock is not None
    assert "1 live" in bizlog(folder, "status", "journal").stdout
    done = bizlog(folder, "journal", "drain", "journal", "--sink", "file:again")
    assert "which runs and delivers it; left alone" in done.stderr
    lock.close()

    done = bizlog(folder, "status", "journal")
    assert "1 orphan" in done.stdout
    assert "pending  http 2,000" in done.stdout
    bizlog(folder, "replay", "journal", "--sink", "file:all")
    assert lines_in(folder / "all") == lines_in(folder / "events")
    done = bizlog(folder, "journal", "drain", "journal", "--sink", "file:again")
    assert re.search(r"^file +2,000 +2,000 .*closed$", done.stdout, re.MULTILINE)
    assert lines_in(folder / "again") == sorted(r.data for r in records[1_000:])
    assert list((folder / "journal").iterdir()) == []


def record_of(line):
    """Make the record of an event again."""
    event = json.loads(line)
    names = ("event_id", "event_type", "event_time", "sequence")
    return Record(line, *(event[name] for name in names))
