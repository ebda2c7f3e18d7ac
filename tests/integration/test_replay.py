"""
`bizlog demo --replay` loses nothing, doubles nothing and keeps every digit.

The rules are checked on a small file here, plain and compressed, and on nine months of
the real shop where they lie beside the project (or where BIZLOG_TEST_DATA names a CSV
file of the same columns). What must come out is computed from the CSV file by a plain
loop that shares no code with the replay.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import pytest

from bizlog.cli import main

ROOT = Path(__file__).parents[2]

REAL = Path(
    os.environ.get("BIZLOG_TEST_DATA")
    or Path(__file__).resolve().parents[3]
    / "shared/data/online-retail-2010-12_2011-08.csv.gz"
)

# Real minutes of a busy machine, not of this test: alone it takes about 25 seconds.
pytestmark = pytest.mark.timeout(240)

EXACT = Context(prec=80)

SMALL = """\
InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
536365,85123A,WHITE HANGING HEART,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom
536365,71053,"LAMP, ""WHITE"", TIN",6,2010-12-01 08:27:00,3.39,17850.0,United Kingdom
536370,22728,ALARM CLOCK,24,2010-12-01 08:45:00,3.75,12583.0,France
536365,84406B,CREAM CUPID,8,2010-12-01 08:50:00,2.75,17850.0,United Kingdom
C536379,D,Discount,-1,2010-12-01 09:41:00,27.5,14527.0,United Kingdom
C536379,D,Discount,-1,2010-12-01 09:41:00,27.5,14527.0,United Kingdom
536589,21777,,-10,2010-12-01 16:50:00,0.0,,United Kingdom
536600,22411,JUMBO BAG,3,2010-12-02 23:59:59,0.001,,EIRE
A563186,B,Adjust bad debt,1,2011-08-12 14:51:00,-11062.06,,United Kingdom
536600,22411,JUMBO BAG,0,2011-08-12 14:52:00,1.95,,EIRE
"""


@dataclass
class Expected:
    """What a plain reading of the CSV file says."""

    lines: dict[tuple[str, int], tuple[str, Decimal]] = field(default_factory=dict)
    totals: dict[str, Decimal] = field(default_factory=dict)
    sales: int = 0


@dataclass
class Replayed:
    """One replay: the CSV file, what the command said, what is in the files."""

    path: Path
    expected: Expected
    code: int
    out: str
    err: str
    seconds: float
    events: list[dict[str, Any]]

    def of(self, *event_types: str) -> list[dict[str, Any]]:
        """The events of some types."""
        return [e for e in self.events if e["event_type"] in event_types]

    @property
    def line_events(self) -> list[dict[str, Any]]:
        """The events that stand for one invoice line each."""
        return self.of("product.added_to_cart", "order.returned")


def read_plainly(path: Path) -> Expected:
    """Compute what must come out: lines by invoice and number, totals, sales."""
    expected = Expected()
    numbers: Counter[str] = Counter()
    before = None
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as text:
        for row in csv.DictReader(text):
            invoice, country = row["InvoiceNo"], row["Country"]
            numbers[invoice] += 1
            quantity = Decimal(row["Quantity"])
            total = quantity * Decimal(row["UnitPrice"])
            sold = quantity >= 0 and invoice[0] != "C"
            kind = "product.added_to_cart" if sold else "order.returned"
            expected.lines[invoice, numbers[invoice]] = (kind, total)
            expected.totals[country] = expected.totals.get(country, Decimal(0)) + total
            sale = (invoice, row["CustomerID"], country) if sold else None
            expected.sales += sale is not None and sale != before
            before = sale
    return expected


def read_files(folder: Path) -> list[dict[str, Any]]:
    """Read every event that the replay wrote, money as Decimal."""
    decode = json.JSONDecoder(parse_float=Decimal).decode
    events: list[dict[str, Any]] = []
    for path in sorted(folder.glob("event_type=*/date=*/*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                event = decode(line)
                assert path.parts[-3] == f"event_type={event['event_type']}"
                assert path.parts[-2] == f"date={event['event_time'][:10]}"
                events.append(event)
    return events


def small_file(folder: Path, name: str) -> Path:
    """Write the small file, compressed if its name says so."""
    path = folder / name
    data = SMALL.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


@pytest.fixture(scope="module", params=["small.csv", "small.csv.gz", "real"])
def replayed(request, tmp_path_factory) -> Replayed:
    """Replay a file once; all rules look at the same run."""
    folder = tmp_path_factory.mktemp("replay")
    path = REAL if request.param == "real" else small_file(folder, request.param)
    if not path.is_file():
        pytest.skip("the real invoice lines are not beside the project")
    words = ["demo", "--replay", str(path), "--out", str(folder / "out")]
    started = time.perf_counter()
    code, out, err = run_apart(words) if path == REAL else run_here(words)
    return Replayed(
        path=path,
        expected=read_plainly(path),
        code=code,
        out=out,
        err=err,
        seconds=time.perf_counter() - started,
        events=read_files(folder / "out"),
    )


def run_here(words: list[str]) -> tuple[int, str, str]:
    """Run the command in this process; exit code and what it said."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(words)
    return code, out.getvalue(), err.getvalue()


def run_apart(words: list[str]) -> tuple[int, str, str]:
    """Run it as a user does; a process that measures coverage takes thrice as long."""
    done = subprocess.run(
        [sys.executable, "-m", "bizlog.cli", *words],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'handlers'}"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_it_ends_well(replayed):
    """The command ends with 0, its ledger is closed, and only progress is on stderr."""
    assert replayed.code == 0
    assert re.search(r"^  file .* closed$", replayed.out, re.MULTILINE)
    assert all(line.startswith("invoice lines:") for line in replayed.err.splitlines())


def test_every_line_is_in_the_files_exactly_once(replayed):
    """Invoice and line number name one event each, of the right type and amount."""
    found = Counter(
        (event["custom_properties"]["invoice"], event["custom_properties"]["line"])
        for event in replayed.line_events
    )
    assert found.keys() == replayed.expected.lines.keys()
    assert set(found.values()) == {1}
    for event in replayed.line_events:
        own = event["custom_properties"]
        total = event["order_total"] if "order_total" in event else own["line_total"]
        expected = replayed.expected.lines[own["invoice"], own["line"]]
        assert (event["event_type"], total) == expected


def test_every_sale_has_its_order(replayed):
    """Each run of lines of one sale has one order.placed; there is nothing else."""
    assert len(replayed.of("order.placed")) == replayed.expected.sales
    lines = len(replayed.expected.lines)
    assert len(replayed.events) == lines + replayed.expected.sales
    assert re.search(rf"^  all +{len(replayed.events):,}$", replayed.out, re.MULTILINE)


def sum_by_country(amounts) -> dict[str, Decimal]:
    """Add amounts by country, exactly."""
    totals: dict[str, Decimal] = {}
    for country, amount in amounts:
        totals[country] = EXACT.add(totals.get(country, Decimal(0)), amount)
    return totals


def test_totals_by_country_from_the_orders(replayed):
    """Orders placed and returned add up to the CSV file's totals, to the last digit."""
    amounts = (
        (event["custom_properties"]["country"], event["order_total"])
        for event in replayed.of("order.placed", "order.returned")
    )
    assert sum_by_country(amounts) == replayed.expected.totals


def test_totals_by_country_from_the_lines(replayed):
    """Line events add up to the same totals, to the last digit."""
    amounts = (
        (
            event["custom_properties"]["country"],
            event["custom_properties"].get("line_total", event.get("order_total")),
        )
        for event in replayed.line_events
    )
    assert sum_by_country(amounts) == replayed.expected.totals


def test_orders_add_up(replayed):
    """The total of an order is that of its items: quantity times price."""
    for event in replayed.of("order.placed", "order.returned"):
        amounts = (
            EXACT.multiply(Decimal(item["quantity"]), item["price"])
            for item in event["order_items"]
        )
        assert sum(amounts) == event["order_total"]


def test_sequences_have_no_gap_and_no_double(replayed):
    """One producer numbered its events from 1 to N, and every id is another."""
    assert len({event["producer_id"] for event in replayed.events}) == 1
    numbers = sorted(event["sequence"] for event in replayed.events)
    assert numbers == list(range(1, len(replayed.events) + 1))
    assert len({event["event_id"] for event in replayed.events}) == len(numbers)


def test_the_context_is_that_of_the_invoice(replayed):
    """Every event carries session and correlation of its invoice."""
    for event in replayed.events:
        invoice = event["custom_properties"]["invoice"]
        assert event["session_id"] == invoice
        assert event["correlation_id"] == f"invoice-{invoice}"
        assert not event.get("user_id", "").endswith(".0")


def test_the_figures_of_the_known_file(replayed):
    """The nine months beside the project have exactly these figures."""
    if replayed.path.name != "online-retail-2010-12_2011-08.csv.gz":
        pytest.skip("another file")
    assert len(replayed.expected.lines) == 320_705
    # One of the 12,980 invoices with sales, 542806, was interrupted by another.
    assert replayed.expected.sales == 12_981
    sys.stdout.write(f"{len(replayed.events):,} events, {replayed.seconds:.1f} s\n")


def test_bad_rows_stop_nothing(tmp_path, capsys):
    """Bad rows are named and left out; all others arrive, and the code is 1."""
    good = SMALL.splitlines(keepends=True)
    bad = ["1,A,Cup\n", "2,A,Cup,six,2010-12-01 08:26:00,1,,France\n"]
    path = tmp_path / "bad.csv"
    path.write_text("".join([*good[:4], *bad, *good[4:]]))
    out = tmp_path / "out"
    assert main(["demo", "--replay", str(path), "--out", str(out)]) == 1
    err = capsys.readouterr().err
    assert "2 rows could not be read" in err
    assert "line 5: row: expected 8 columns, got 3" in err
    assert "line 6: Quantity: expected a whole number" in err
    assert len([e for e in read_files(out) if e["event_type"] != "order.placed"]) == 10


def test_limit(tmp_path):
    """`--limit` takes that many lines; the sale that is cut has its order, too."""
    path, out = small_file(tmp_path, "small.csv"), tmp_path / "out"
    words = ["demo", "--replay", str(path), "--out", str(out), "--limit", "1"]
    assert main(words) == 0
    types = sorted(event["event_type"] for event in read_files(out))
    assert types == ["order.placed", "product.added_to_cart"]
