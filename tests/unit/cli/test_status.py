"""`bizlog status` as a function: whose journals, what waits, and the ledgers."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest

from bizlog.cli import main, status
from bizlog.cli.status import duration
from bizlog.delivery.sqlite import SqliteJournal


@pytest.fixture(autouse=True)
def no_second_look(monkeypatch):
    """Do not wait before looking again."""
    monkeypatch.setattr(status, "LOOK_AGAIN_SECONDS", 0.0)


def test_everything_about_a_journal(make_journal, capsys):
    """State, process, size, events, what waits for which sink, and the ledger."""
    make_journal("j1", lanes={"file": 120, "http": 70}, offered=120)
    make_journal("j2", live=True, pid=7)
    assert main(["status", "journal"]) == 0
    out = capsys.readouterr().out
    assert "journal: 2 journals (1 live, 1 orphan, 0 quarantined), " in out
    assert "j1  orphan, process 4711\n" in out
    assert "j2  live, process 7\n" in out
    assert "holds    120 events, made 0 s ago" in out
    assert re.search(r"pending  file 0, http 50; the oldest since \d s", out)
    assert "pending  no sink has begun" in out
    assert re.search(r"^    file +120 +0 .* 120 +balanced$", out, re.MULTILINE)
    assert "ledger   none was noted" in out


def test_json(make_journal, capsys):
    """The same for programs."""
    make_journal("j1", lanes={"file": 100}, offered=120)
    assert main(["status", "journal", "--json"]) == 0
    [told] = json.loads(capsys.readouterr().out)["journals"]
    assert (told["journal_id"], told["state"], told["pid"]) == ("j1", "orphan", 4711)
    assert (told["events"], told["pending"]) == (120, {"file": 20})
    assert told["balanced"] is True
    assert told["ledger"]["file"]["offered"] == 120
    assert told["oldest_pending_seconds"] >= 0
    assert told["bytes"] > 0


def test_a_ledger_that_does_not_balance_is_a_fault(make_journal, capsys):
    """It is shown as OPEN, and the code is 1."""
    make_journal(offered=121)
    assert main(["status", "journal"]) == 1
    assert "OPEN" in capsys.readouterr().out


def test_a_ledger_is_looked_at_twice(make_journal, monkeypatch):
    """Noted in the middle of an event it may be one off; a moment later it is not."""
    make_journal("j1", offered=121)
    waits = []

    def settle(seconds):
        waits.append(seconds)
        Path("journal/j1.db").unlink()
        make_journal("j1", offered=120)

    arguments = argparse.Namespace(folder=Path("journal"), json=True)
    assert status.run(arguments, sleep=settle) == 0
    assert len(waits) == 1


def test_quarantine_and_unreadable_files_are_faults(make_journal, capsys):
    """They are named with the reason, and the code is 1."""
    path = make_journal("j1")
    aside = path.parent / "quarantine"
    aside.mkdir()
    path.rename(aside / "j1.corrupt.db")
    (path.parent / "j3.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5_000)
    assert main(["status", "journal"]) == 1
    out = capsys.readouterr().out
    assert "0 live, 1 orphan, 1 quarantined" in out
    assert "problem  corrupt" in out
    assert out.count("problem") == 2


def test_a_ledger_that_cannot_be_read_is_none(make_journal, capsys):
    """A note of another kind is not a fault of the journal."""
    make_journal("j1")
    journal = SqliteJournal(Path("journal/j1.db"))
    journal.note("ledger", b"\xff{")
    journal.close()
    assert main(["status", "journal"]) == 0
    assert "none was noted" in capsys.readouterr().out


def test_the_folder_is_the_services_setting(make_journal, monkeypatch, capsys):
    """BIZLOG_JOURNAL names it; without any the error says how to name it."""
    make_journal()
    assert main(["status"]) == 2
    assert "BIZLOG_JOURNAL" in capsys.readouterr().err
    monkeypatch.setenv("BIZLOG_JOURNAL", "journal")
    assert main(["status"]) == 0


def test_a_folder_that_is_not_there_is_explained(own_folder, capsys):
    """No folder: nothing was journaled; a file in its place: it cannot be read."""
    assert main(["status", "none"]) == 2
    assert "no process has journaled there" in capsys.readouterr().err
    (own_folder / "file").write_text("")
    assert main(["status", "file"]) == 2
    assert "file: cannot be read: Not a directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "an unknown time"),
        (0.4, "0 s"),
        (59, "59 s"),
        (125, "2 min 5 s"),
        (7_260, "2 h 1 min"),
        (180_000, "2 d 2 h"),
    ],
)
def test_time_spans_are_written_as_people_say_them(seconds, text):
    """Two units at most."""
    assert duration(seconds) == text
