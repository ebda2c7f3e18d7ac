"""
The fault matrix in short: every row of bizlog's, and a harness that cannot be fooled.

`make faults` runs it in full and beside the peers. Here there are fewer events and
kills, and the seconds that targets allow are many times as long: what is held is that
nothing is lost, doubled or hung.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

MATRIX = Path(__file__).with_name("matrix.py")
GROUPS = (
    "ends,sigterm,handled,plain,values",
    "sigkill,pending,fork,forks",
    "refuse,hang,503,429,clock",
    "400,207,cut,burst,flood,full,eio,deleted",
)
IN_SHORT = ("--quick", "--patience", "10", "--seed", "1")

# A contender that does what its verbs say; `{emit}` is what it does with one event.
DOUBLE = """
import json, os, urllib.request
class Double:
    def __init__(self, url, folder, **options):
        self.url = url
    def emit(self, n, **properties):
        {emit}
    def send(self, n):
        event = {{"event_id": f"id-{{n}}", "custom_properties": {{"n": n}}}}
        body = json.dumps(event).encode()
        urllib.request.urlopen(self.url + "/events/batch", body).close()
    def flush(self, timeout):
        return True
    def ledger(self):
        return {{"balanced": True, "dropped": {{}}}}
make = Double
"""


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the matrix as `make faults` does, in short."""
    return subprocess.run(
        [sys.executable, MATRIX, *IN_SHORT, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(120)
@pytest.mark.parametrize("rows", GROUPS)
def test_bizlog_holds(rows: str) -> None:
    """With a journal and without, bizlog meets its targets."""
    done = run("--only", rows, "--contender", "bizlog,bizlog-journal")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_row_is_tried(beside: Callable[[str], ModuleType]) -> None:
    """No row is left out of the tests above; test_landing.py tries the landings."""
    rows = [name for name, row in beside("matrix").ROWS.items() if not row.lands]
    assert sorted(",".join(GROUPS).split(",")) == sorted(rows)


def double(tmp_path: Path, emit: str) -> dict[str, Any]:
    """Put a double in bizlog's place through the first row; the cell."""
    module = tmp_path / "double.py"
    module.write_text(DOUBLE.format(emit=emit))
    answer = tmp_path / "answer.json"
    column = f"bizlog={module}"
    done = run("--only", "ends", "--contender", column, "--json", answer)
    [cell] = json.loads(answer.read_text())["cells"]
    assert done.returncode == (1 if cell["misses"] else 0), done.stderr
    return {**cell, "out": done.stdout}


@pytest.mark.parametrize(
    ("emit", "misses"),
    [
        ("self.send(n)", []),
        ("n == 7 or self.send(n)", ["1 of 1000 events lost", "999 of 1000 arrived"]),
        ("self.send(n); n == 7 and self.send(n)", ["1 events doubled"]),
        ("self.send(n); n == 7 and int('x')", ["emit raised {'ValueError': 1}"]),
    ],
    ids=["all is well", "one is lost", "one is doubled", "one raises"],
)
def test_the_matrix_notices(tmp_path: Path, emit: str, misses: list[str]) -> None:
    """One event of bizlog's lost or doubled, or an exception, fails the run."""
    cell = double(tmp_path, emit)
    assert cell["misses"] == misses
    for miss in misses:
        assert f"MISS  ends, bizlog: {miss}" in cell["out"]


def test_a_process_that_dies_is_noticed(tmp_path: Path) -> None:
    """A crash of bizlog's process is a miss with its last words."""
    cell = double(tmp_path, "self.send(n); n == 7 and os._exit(3)")
    assert cell["misses"][0].startswith("the process died")


def test_a_peer_that_is_not_installed_is_named(
    beside: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody takes a matrix for whole in which a peer is missing, unless it is excused."""
    matrix = beside("matrix")
    absent = replace(matrix.CONTENDERS[2], distribution="no-such-distribution")
    assert (
        matrix.why_missing(absent) == "segment: no-such-distribution is not installed"
    )
    monkeypatch.setitem(matrix.EXCUSED, "segment", "it has gone")
    assert matrix.why_missing(absent) is None


@pytest.mark.parametrize("column", ["nobody", "bizlog=missing.py"])
def test_unknown_columns_are_named(column: str) -> None:
    """A contender that does not exist is a wrong command line."""
    done = run("--only", "clock", "--contender", column)
    assert done.returncode == 2
    assert column.rpartition("=")[2] in done.stderr


def test_unknown_rows_are_named() -> None:
    """A row that does not exist is a wrong command line, with the known ones."""
    done = run("--only", "typhoon")
    assert done.returncode == 2
    assert "'typhoon'" in done.stderr
    assert "sigkill" in done.stderr
