"""
The harness itself: it counts what is lost, and a missed target fails the run.

Needs no peers: contenders are the floor, and variants of it that lose, double or dawdle.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

BENCH = Path(__file__).with_name("bench.py")
FLOOR = BENCH.parent / "contenders" / "floor.py"

Variant = Callable[[str, str], Path]

VARIANT = """
import time
from contextlib import contextmanager
from pathlib import Path
from child import load_factory
from workload import Contender

floor = load_factory(Path({floor!r}))

@contextmanager
def contender(directory, capacity):
    with floor(directory, capacity) as (emit, finish):
        def variant(fields):
            number = int(fields["product_id"][2:])
            {body}
        yield Contender(variant, finish)
"""


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the benchmark as `make bench` does, with few events and one round."""
    command = [sys.executable, BENCH, "--events", "200", "--rounds", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def variant(tmp_path: Path) -> Variant:
    """Write a contender that does `body` instead of one plain emit."""

    def write(name: str, body: str) -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(VARIANT.format(floor=str(FLOOR), body=body))
        return path

    return write


@pytest.fixture
def slow(variant: Variant) -> Path:
    """A contender that any other beats."""
    return variant("slow", "time.sleep(0.001); emit(fields)")


def test_floor_delivers_everything(tmp_path: Path) -> None:
    """The floor writes each event once, and the raw numbers are kept as JSON."""
    done = run("--only", "floor", "--json", tmp_path / "runs.json")
    assert done.returncode == 0, done.stderr
    (first,) = json.loads((tmp_path / "runs.json").read_text())["rounds"]
    assert first["floor"]["delivered"] == 200
    assert first["floor"]["duplicates"] == 0
    assert first["floor"]["rss_bytes"] > 1_000_000


def test_lost_events_are_counted(variant: Variant, tmp_path: Path) -> None:
    """An event that does not reach the file is counted; a peer's loss fails nothing."""
    lossy = variant("lossy", "number % 10 and emit(fields)")
    done = run(
        "--contender", f"peer={lossy}", "--only", "peer", "--json", tmp_path / "j"
    )
    assert done.returncode == 0, done.stderr
    (first,) = json.loads((tmp_path / "j").read_text())["rounds"]
    assert first["peer"]["delivered"] == 180
    assert done.stdout.splitlines()[-1].split()[-1] == "20"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("number == 7 or emit(fields)", "lost 1 and doubled 0"),
        ("emit(fields); number == 7 and emit(fields)", "lost 0 and doubled 1"),
    ],
)
def test_a_loss_or_a_double_of_bizlog_fails_the_run(
    variant: Variant, slow: Path, body: str, words: str
) -> None:
    """One event of bizlog's missing or doubled exits 1, however fast it was."""
    ours = variant("ours", body)
    done = run_against(ours, slow)
    assert done.returncode == 1
    assert f"MISS  bizlog {words}" in done.stdout


def run_against(ours: Path, theirs: Path) -> subprocess.CompletedProcess[str]:
    """Run stand-ins under the two names that the target compares."""
    stand_ins = (f"bizlog={ours}", f"opentelemetry={theirs}")
    added = [part for item in stand_ins for part in ("--contender", item)]
    return run(*added, "--only", "bizlog,opentelemetry")


def test_a_missed_ratio_exits_1(slow: Path) -> None:
    """The target in the table decides the exit status: slower than the base is 1."""
    done = run_against(slow, FLOOR)
    assert done.returncode == 1
    assert "MISS  events/s, end to end: bizlog >= 2 x opentelemetry: 0." in done.stdout


def test_a_met_ratio_exits_0(slow: Path) -> None:
    """The same target, met, exits 0."""
    done = run_against(FLOOR, slow)
    assert done.returncode == 0, done.stdout
    assert "pass  events/s, end to end" in done.stdout


def test_a_contender_that_cannot_run_misses_its_target(tmp_path: Path) -> None:
    """A target whose contender was asked for and failed is missed, and says why."""
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_package\n")
    done = run_against(broken, FLOOR)
    assert done.returncode == 1
    assert "No module named 'no_such_package'" in done.stdout
    assert "not measured" in done.stdout


def test_unfinished_lines_and_other_files_do_not_count(
    variant: Variant, tmp_path: Path
) -> None:
    """Only whole lines of JSON with their context, in files named *.jsonl, count."""
    body = (
        "emit(fields); finish(); out = Path(directory, 'events.jsonl'); "
        "data = out.read_bytes(); number == 199 and "
        "(out.with_suffix('.part').write_bytes(data), out.write_bytes(data[:-2]))"
    )
    cut = variant("cut", body)
    done = run("--contender", f"cut={cut}", "--only", "cut", "--json", tmp_path / "j")
    assert done.returncode == 0, done.stderr
    (first,) = json.loads((tmp_path / "j").read_text())["rounds"]
    assert first["cut"]["delivered"] == 199


def test_markdown_is_a_table() -> None:
    """`--markdown` prints a table that a README can carry."""
    heading, rule, row, *_ = run("--only", "floor", "--markdown").stdout.splitlines()
    assert heading.startswith("| contender | events/s [q1–q3] |")
    assert set(rule) <= set("|-: ")
    assert row.count("|") == heading.count("|")


def test_help_teaches() -> None:
    """`--help` shows examples, the exit status and how to add a contender."""
    text = run("--help").stdout
    assert all(word in text for word in ("examples:", "exit status:", "contender("))


def test_unknown_contender_is_named() -> None:
    """A wrong name exits 2 and lists the right ones."""
    done = run("--only", "flour")
    assert done.returncode == 2
    assert "no contender 'flour'" in done.stderr
    assert "floor" in done.stderr
