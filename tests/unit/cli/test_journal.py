"""`bizlog journal` ls and drain as functions."""

from __future__ import annotations

import _thread
import asyncio
import json
import re
import sqlite3
from pathlib import Path

import pytest

from bizlog.cli import conveyor, journal_drain, main
from bizlog.delivery import locks
from bizlog.delivery.sqlite import SqliteJournal


def drain(*words):
    """Run `bizlog journal drain` into the outlet."""
    return main(["journal", "drain", "journal", "--sink", "outlet:", *words])


def lanes(path):
    """Read where each sink stands."""
    journal = SqliteJournal(path)
    found = {name: state.settled for name, state in journal.lanes().items()}
    journal.close()
    return found


def test_ls_has_a_line_for_each(make_journal, capsys):
    """State, process, age, size, events and what waits."""
    make_journal("j1", lanes={"file": 120, "http": 100})
    make_journal("j2", live=True)
    assert main(["journal", "ls", "journal"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("journal: 2 journals\n")
    assert re.search(r"^j1 +orphan +4711 +0 s +[\d,]+ +120 +20$", out, re.MULTILINE)
    assert re.search(r"^j2 +live +4711 .* +120 +120$", out, re.MULTILINE)


def test_ls_names_what_is_wrong(make_journal, capsys):
    """A file that cannot be read has its problem in its line; the code is 1."""
    path = make_journal()
    (path.parent / "j3.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5_000)
    assert main(["journal", "ls", "journal"]) == 1
    assert re.search(r"^j3 +orphan .*Error: ", capsys.readouterr().out, re.MULTILINE)


def test_ls_of_an_empty_folder(own_folder, capsys):
    """No journal is no error."""
    (own_folder / "journal").mkdir()
    assert main(["journal", "ls", "journal"]) == 0
    assert capsys.readouterr().out == "journal: 0 journals\n"


def test_drain_delivers_what_any_sink_lacks_and_removes_the_files(
    make_journal, outlet, capsys
):
    """From the sink that is furthest behind; the files are gone, locks included."""
    make_journal("j1", lanes={"file": 120, "http": 100})
    make_journal("j2", numbers=range(121, 131), lanes={"file": 0})
    make_journal("j3", numbers=range(131, 136))
    assert drain() == 0
    assert outlet.sequences == [*range(101, 121), *range(121, 131), *range(131, 136)]
    assert list(Path("journal").iterdir()) == []
    out = capsys.readouterr().out
    assert re.search(r"^outlet +35 +35 .*closed$", out, re.MULTILINE)
    assert "3 of 3 orphans drained and removed" in out


def test_drain_for_one_lane_keeps_what_others_lack(make_journal, outlet, capsys):
    """That sink is served, the file stays for the other one; then it goes."""
    path = make_journal("j1", lanes={"file": 110, "http": 100})
    assert drain("--lane", "file") == 0
    assert outlet.sequences == list(range(111, 121))
    assert lanes(path) == {"file": 120, "http": 100}
    assert "0 of 1 orphan drained and removed" in capsys.readouterr().out
    assert drain("--lane", "http") == 0
    assert not path.exists()


def test_drain_of_a_lane_that_is_not_there(make_journal, outlet, capsys):
    """The error names those that are; nothing is sent."""
    make_journal("j1", lanes={"http": 0})
    make_journal("j2")
    assert drain("--lane", "file") == 1
    err = capsys.readouterr().err
    assert "j1.db: not drained: it knows no sink 'file', only http" in err
    assert "j2.db: not drained: it knows no sink 'file', only none" in err
    assert outlet.batches == []


def test_drain_leaves_the_living_alone(make_journal, outlet, capsys):
    """A live journal is named with its process and not touched."""
    path = make_journal("j1", live=True)
    assert drain() == 0
    captured = capsys.readouterr()
    assert "j1.db belongs to process 4711, which runs" in captured.err
    assert "0 of 0 orphans" in captured.out
    assert path.exists()
    assert outlet.batches == []


def test_drain_leaves_what_is_adopted_meanwhile(
    make_journal, outlet, monkeypatch, capsys
):
    """A service that starts at this moment has it: said, code 1, nothing sent."""
    make_journal("j1")
    monkeypatch.setattr(locks, "take", lambda _: None)
    assert drain() == 1
    assert "another process has taken it over" in capsys.readouterr().err
    assert outlet.batches == []


def test_drain_and_the_quarantine(make_journal, outlet, capsys):
    """What was put aside is left alone and told; the rest is drained."""
    path = make_journal("j1", numbers=range(1, 4))
    aside = path.parent / "quarantine"
    aside.mkdir()
    (aside / "x.corrupt.db").write_bytes(b"")
    assert drain() == 1
    assert outlet.sequences == [1, 2, 3]
    assert "1 journal in quarantine left alone" in capsys.readouterr().err


def test_an_unreadable_file_stops_no_other(make_journal, outlet, capsys):
    """It is named and stays; the next one is drained."""
    path = make_journal("j2", numbers=range(1, 4))
    (path.parent / "j1.db").write_bytes(b"no database at all, but long enough" * 99)
    assert drain() == 1
    assert "j1.db: not drained: " in capsys.readouterr().err
    assert outlet.sequences == [1, 2, 3]
    assert (path.parent / "j1.db").exists()


def test_damaged_events_cost_themselves_and_the_file_is_put_aside(
    make_journal, outlet, capsys
):
    """The others are delivered; nothing of what is damaged is deleted."""
    path = make_journal("j1", lanes={"file": 0})
    with sqlite3.connect(path) as connection:
        connection.execute(
            "update runs set data = zeroblob(length(data)) where first = 50"
        )
    connection.close()
    assert drain() == 1
    assert outlet.sequences == [*range(1, 51), *range(101, 121)]
    assert "50 events damaged and cannot be read" in capsys.readouterr().err
    [aside] = (path.parent / "quarantine").iterdir()
    assert aside.name == "j1.damaged.db"
    assert lanes(aside) == {"file": 120}


def test_ctrl_c_keeps_what_is_settled(make_journal, outlet, monkeypatch, capsys):
    """Stopped in the middle, the next drain goes on there, and none comes twice."""
    monkeypatch.setattr(journal_drain, "RUN_EVENTS", 10)
    outlet.max_events = 10
    path = make_journal("j1", lanes={"file": 0})
    make_journal("j2", numbers=[500], lanes={"file": 0})
    outlet.answer = lambda b: _thread.interrupt_main() if b.first == 50 else None
    assert drain() == 130
    sent = len(outlet.sequences)
    assert 50 <= sent < 120
    assert lanes(path) == {"file": sent}
    outlet.answer = lambda _: None
    assert drain() == 0
    assert outlet.sequences == [*range(1, 121), 500]


def test_refused_events_go_to_the_dead_letters(
    make_journal, outlet, make_event, capsys
):
    """They are settled all the same, and the file is removed."""
    path = make_journal("j1", numbers=range(1, 4))
    outlet.refused = {json.loads(make_event(2))["event_id"]}
    assert drain("--dead-letters", "mine") == 1
    [letters] = Path("mine").iterdir()
    assert f"1 event refused: they are in {letters}" in capsys.readouterr().err
    assert not path.exists()


def test_a_sink_that_cannot_flush_keeps_the_file(make_journal, outlet, capsys):
    """Sent but not known to be durable: the file stays, code 1."""
    path = make_journal("j1", numbers=range(1, 4))
    outlet.flush_error = OSError("disk")
    assert drain() == 1
    assert "the sink cannot flush" in capsys.readouterr().err
    assert path.exists()


def test_a_sink_that_stalls_keeps_the_file(make_journal, outlet, monkeypatch, capsys):
    """Without progress for minutes: code 1, said so, and the file stays as it was."""
    monkeypatch.setattr(conveyor, "STALL_SECONDS", 0.2)
    path = make_journal("j1", numbers=range(1, 4), lanes={"file": 0})
    outlet.answer = lambda _: asyncio.sleep(3_600)
    assert drain() == 1
    assert "the sink took nothing for 0.2 s" in capsys.readouterr().err
    assert lanes(path) == {"file": 0}


def test_a_disk_that_gives_no_answer_is_told(make_journal, outlet, monkeypatch, capsys):
    """Neither a wait without end nor a file that is removed unread."""
    path = make_journal("j1", numbers=range(1, 4))
    monkeypatch.setattr(SqliteJournal, "read", lambda *_: [])
    assert drain() == 1
    assert "the disk gives no answer" in capsys.readouterr().err
    assert path.exists()


def test_help_teaches(capsys):
    """The verbs and their examples."""
    assert main(["journal", "--help"]) == 0
    assert "--lane file --sink file:./bizlog-events" in capsys.readouterr().out
    assert main(["journal", "drain", "--help"]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "100")
        assert main(["journal"]) == 2
