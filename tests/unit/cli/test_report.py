"""The closing table: counts what is in the files, and its commands work."""

from __future__ import annotations

import subprocess
from decimal import Decimal
from pathlib import Path

import pytest

from bizlog.cli.report import all_delivered, closing_table, count_events, files_of
from bizlog.ledger import Ledger, SinkLedger


def sink_ledger(**changes):
    """Make a closed ledger of one sink, with changes."""
    values = {
        "offered": 2,
        "delivered": 2,
        "rejected": 0,
        "dropped": {},
        "dead_lettered": 0,
        "pending": 0,
    }
    return Ledger({"file": SinkLedger(**{**values, **changes})})


@pytest.fixture(params=["events", "it's [my] folder"])
def folder(request, tmp_path) -> Path:
    """Make a folder as a file sink leaves it: three orders, one unfinished file."""
    root = tmp_path / request.param
    placed = root / "event_type=order.placed" / "date=2011-01-03"
    returned = root / "event_type=order.returned" / "date=2011-01-03"
    placed.mkdir(parents=True)
    returned.mkdir(parents=True)
    (placed / "a.jsonl").write_text('{"order_total":1.10}\n{"order_total":2}\n')
    (placed / ".b.jsonl.part").write_text('{"order_total":50}\n')
    (returned / "c.jsonl").write_text('{"order_total":-0.05}\n')
    return root


def table(folder, **changes):
    """Draw the table of the folder."""
    values = {
        "folder": folder,
        "before": frozenset[Path](),
        "ledger": sink_ledger(),
        "seconds": 2.0,
    }
    return closing_table(**{**values, **changes})


def test_events_are_counted_in_complete_files(folder):
    """Each line of a complete file is one event of the type its folder names."""
    counts = count_events(folder, frozenset())
    assert counts == {"order.placed": 2, "order.returned": 1}


def test_files_of_earlier_runs_do_not_count(folder):
    """What was there before is left out, also a dead run's file completed since."""
    before = files_of(folder)
    assert {path.name for path in before} == {"a.jsonl", "b.jsonl", "c.jsonl"}
    part = next(folder.rglob("*.part"))
    part.rename(part.with_name("b.jsonl"))
    assert count_events(folder, before) == {}
    assert "earlier runs" in table(folder, before=before)


def test_it_shows_counts_ledger_rate_and_place(folder):
    """The table names events by type, the ledger, the rate and the folder."""
    text = table(folder)
    assert "order.placed    2" in text
    assert "closed" in text
    assert "3 events in 2.0 s: 2/s" in text
    assert f"The files are in {folder}/" in text


def test_its_commands_work(folder):
    """Each of the three lines can be pasted into a shell as it stands."""
    lines = table(folder).splitlines()[-3:]
    outputs = [
        subprocess.run(
            line, shell=True, check=True, capture_output=True, text=True
        ).stdout
        for line in lines
    ]
    assert outputs == ['{"order_total":1.10}\n{"order_total":2}\n', "3\n", "3.05\n"]


def test_money_is_exact_and_complete(folder):
    """The five largest countries, the others together, and all, to the last digit."""
    totals = {f"Land {n}": Decimal(n) + Decimal("0.001") for n in range(1, 8)}
    rows = [line.split() for line in table(folder, totals=totals).splitlines()]
    assert ["Land", "7", "7.001"] in rows
    assert ["2", "more", "3.002"] in rows
    assert ["all", "28.007"] in rows


def test_no_events_at_all(tmp_path):
    """An empty run still has a table."""
    assert "all  0" in table(tmp_path, ledger=sink_ledger(offered=0, delivered=0))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"offered": 3}, False),
        ({"delivered": 1, "pending": 1}, False),
        ({"delivered": 1, "rejected": 1}, False),
        ({"delivered": 1, "dropped": {"queue_full": 1}}, False),
        ({"delivered": 1, "dead_lettered": 1}, False),
    ],
)
def test_all_delivered_means_every_event(changes, expected):
    """A closed ledger is not enough: every event must have reached every sink."""
    assert all_delivered(sink_ledger(**changes)) is expected
