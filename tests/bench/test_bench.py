"""
The harness itself: it counts what is lost, and a missed target fails the run.

Needs no peers: contenders are the floor, and variants of it that lose, double or dawdle.
The scenarios and the courses of a journal run bizlog itself, in small; how they are judged
is shown on made-up outcomes.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

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
    return run_python(BENCH, "--events", "200", "--rounds", "1", *arguments)


def run_python(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run this Python beside the harness's modules."""
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=BENCH.parent
    )


def first_round(path: Path) -> dict[str, Any]:
    """Read what the first round found about the contenders, from the raw numbers."""
    first: dict[str, Any] = json.loads(path.read_text())["contenders"]["rounds"][0]
    return first


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
    first = first_round(tmp_path / "runs.json")
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
    first = first_round(tmp_path / "j")
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


def run_against(
    ours: Path, theirs: Path, *arguments: str, name: str = "opentelemetry"
) -> subprocess.CompletedProcess[str]:
    """Run stand-ins under the two names that a target compares."""
    stand_ins = (f"bizlog={ours}", f"{name}={theirs}")
    added = [part for item in stand_ins for part in ("--contender", item)]
    return run(*added, "--only", f"bizlog,{name}", *arguments)


def test_a_missed_ratio_exits_1(slow: Path) -> None:
    """The targets in the table decide the exit status: on the wrong side of one is 1."""
    done = run_against(slow, FLOOR)
    assert done.returncode == 1
    assert "MISS  events/s, end to end: bizlog >= 3 x opentelemetry: 0." in done.stdout
    assert "MISS  emit p50: bizlog <= 0.45 x opentelemetry: " in done.stdout
    assert "MISS  emit p99: bizlog <= 0.5 x opentelemetry: " in done.stdout


def test_met_ratios_exit_0(slow: Path) -> None:
    """The same targets, met, exit 0."""
    done = run_against(FLOOR, slow)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("pass  ") == 4  # three ratios, and nothing lost


def test_what_is_written_by_hand_is_a_target(slow: Path) -> None:
    """Slower than three quarters of the rate of the same event by hand exits 1."""
    done = run_against(slow, FLOOR, name="by_hand")
    assert done.returncode == 1
    assert "MISS  events/s, end to end: bizlog >= 0.75 x by_hand: 0." in done.stdout


def test_the_floor_is_reported_and_judges_nothing(slow: Path) -> None:
    """However far from the floor, the ratio is a note and the exit status 0."""
    done = run_against(slow, FLOOR, name="floor")
    assert done.returncode == 0, done.stdout
    assert "note  events/s, end to end: bizlog / floor: 0." in done.stdout


def test_a_quick_run_judges_no_ratio(slow: Path) -> None:
    """With `--quick` a ratio is a note, on whichever side of its bound."""
    done = run_against(slow, FLOOR, "--quick")
    assert done.returncode == 0, done.stdout
    assert "note  events/s, end to end: bizlog >= 3 x opentelemetry: 0." in done.stdout
    assert "MISS" not in done.stdout


def test_a_quick_run_judges_losses(variant: Variant, slow: Path) -> None:
    """With `--quick` one event lost still exits 1."""
    done = run_against(variant("ours", "number == 7 or emit(fields)"), slow, "--quick")
    assert done.returncode == 1
    assert "MISS  bizlog lost 1 and doubled 0" in done.stdout


def test_by_hand_is_the_same_event_as_bizlogs(tmp_path: Path) -> None:
    """What bizlog is held against has every field of its event, and no other."""
    assert written_by("by_hand.py", tmp_path) == written_by("bizlog_file.py", tmp_path)


def written_by(contender: str, directory: Path) -> set[str]:
    """Name the fields that a contender writes for one event."""
    out = directory / contender
    done = run_python("child.py", Path("contenders", contender), "1", "1", out)
    assert done.returncode == 0, done.stderr
    (file,) = (out / "rate").rglob("*.jsonl")
    return set(json.loads(file.read_text()))


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
    first = first_round(tmp_path / "j")
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


def test_the_scenarios_hold_bizlog_to_its_counts(tmp_path: Path) -> None:
    """In small, bizlog loses nothing where it may not, and counts what it drops."""
    arguments = "--quick", "--only", "scaling", "--events", "2000"
    done = run(*arguments, "--json", tmp_path / "j")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("pass  ") == 6
    (first,) = json.loads((tmp_path / "j").read_text())["scaling"]["rounds"]
    assert first["crowd"]["arrived"] == 25_000  # with those of the warm-up
    assert first["overrun"]["dropped"] > 0


def test_a_scenario_loads_nothing_but_bizlog() -> None:
    """The memory that is judged is not the harness's: it loads what bizlog loads."""
    done = run_python(
        "-c",
        "import sys, bizlog; loaded = set(sys.modules); import scenario; "
        "print(*sorted(set(sys.modules) - loaded))",
    )
    assert set(done.stdout.split()) <= {"memory", "resource", "scenario", "workload"}
    assert "scenario" in done.stdout


def test_the_imports_are_timed_in_turn() -> None:
    """`import bizlog` is held against `import structlog`; a quick run only notes it."""
    done = run("--quick", "--only", "imports")
    assert done.returncode == 0, done.stderr
    assert "import structlog: " in done.stdout
    assert "note  import: bizlog <= 1.2 x structlog: " in done.stdout


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that judges the scenarios."""
    monkeypatch.syspath_prepend(BENCH.parent)
    return importlib.import_module("scaling")


def outcomes(scaling: ModuleType, **changed: dict[str, Any]) -> dict[str, Any]:
    """Make up one round in which all is well: 10 µs and 40 MB; then change some."""
    found: dict[str, Any] = {}
    for name, scenario in scaling.scenarios(100_000).items():
        dropped = 1_000 if name == "overrun" else 0
        arrived = scenario.offered - dropped
        figures: dict[str, Any] = {
            "seconds": [scenario.events * 10e-6] * scenario.passes,
            "rss_bytes": 40_000_000,
            "offered": scenario.offered,
            "delivered": arrived,
            "dropped": dropped,
            "closed": True,
            "arrived": arrived,
            "duplicates": 0,
        }
        found[name] = scaling.Outcome(scenario, **figures | changed.get(name, {}))
    return found


def test_a_round_in_which_all_is_well_passes(scaling: ModuleType) -> None:
    """What keeps every limit passes, and each target is judged."""
    rounds = [outcomes(scaling)]
    verdicts = scaling.judge_scaling(rounds) + scaling.judge_counts(rounds)
    assert [str(verdict)[:4] for verdict in verdicts] == ["pass"] * 10


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("long", {"seconds": [11.6]}, "cost an event: long <= 1.15 x short: 1.16"),
        ("crowd", {"seconds": [12.6]}, "rate of 8 threads: crowd >= 0.8 x long: 0.79"),
        (
            "long",
            {"rss_bytes": 50_100_000},
            "long <= 50 MB in each round: at most 50.1",
        ),
        (
            "crowd",
            {"rss_bytes": 64_100_000},
            "crowd <= 64 MB in each round: at most 64",
        ),
    ],
)
def test_a_limit_is_a_limit(
    scaling: ModuleType, name: str, change: dict[str, Any], words: str
) -> None:
    """Just beyond a limit is a miss, and of that target alone."""
    verdicts = scaling.judge_scaling([outcomes(scaling, **{name: change})])
    (missed,) = [verdict for verdict in verdicts if not verdict.passed]
    assert words in missed.text


def test_memory_is_held_in_the_worst_round(scaling: ModuleType) -> None:
    """One round above the limit of memory is a miss; a median would hide it."""
    good, bad = outcomes(scaling), outcomes(scaling, long={"rss_bytes": 51_000_000})
    verdicts = scaling.judge_scaling([good, good, bad])
    assert sum(not verdict.passed for verdict in verdicts) == 1


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("long", {"arrived": 1_004_999}),
        ("short", {"duplicates": 1}),
        ("burst", {"dropped": 1, "delivered": 99_999, "arrived": 99_999}),
        ("flood", {"closed": False}),
        ("crowd", {"offered": 1_004_999, "delivered": 1_004_999}),
        ("overrun", {"arrived": 98_999}),
        ("overrun", {"dropped": 999}),
        ("overrun", {"dropped": 999, "offered": 99_999}),
        ("overrun", {"dropped": 0, "delivered": 100_000, "arrived": 100_000}),
    ],
)
def test_counts_must_be_exact(
    scaling: ModuleType, name: str, change: dict[str, Any]
) -> None:
    """Lost, doubled, dropped or miscounted by one is a miss; so is a run without drops."""
    verdicts = scaling.judge_counts([outcomes(scaling, **{name: change})])
    (missed,) = [verdict for verdict in verdicts if not verdict.passed]
    assert missed.text.startswith(name)


def test_a_scenario_that_could_not_run_is_a_miss(scaling: ModuleType) -> None:
    """What was not measured misses its targets, and does not hide behind the others."""
    verdicts = scaling.judge_scaling([]) + scaling.judge_counts([])
    assert not any(verdict.passed for verdict in verdicts)
    assert all("not measured" in verdict.text for verdict in verdicts)


def test_the_courses_of_a_journal_lose_nothing(tmp_path: Path) -> None:
    """In small, all arrives once: beside a dead sink, and in the process after a death."""
    arguments = "--quick", "--only", "durability", "--json", tmp_path / "j"
    done = run(*arguments)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("pass  ") == 5
    (first,) = json.loads((tmp_path / "j").read_text())["durability"]["rounds"]
    assert first["dead_journal"]["dead_journal"]["arrived"] == 1_000
    assert first["backlog"]["drain"]["arrived"] == 2_000


@pytest.fixture
def durability(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that judges the courses of a journal."""
    monkeypatch.syspath_prepend(BENCH.parent)
    return importlib.import_module("durability")


def stretches(durability: ModuleType, **changed: dict[str, Any]) -> dict[str, Any]:
    """Make up one round in which all is well: 10 s each, 1 s to the first delivery."""
    found: dict[str, Any] = {}
    for name in durability.STRETCHES:
        figures: dict[str, Any] = {
            "events": 1_000_000,
            "seconds": 1.0 if name == "first" else 10.0,
            "rss_bytes": 80_000_000,
            "arrived": 1_000_000 if name in durability.DELIVERED else None,
        }
        found[name] = durability.Stretch(**figures | changed.get(name, {}))
    return found


def test_a_journal_with_which_all_is_well_passes(durability: ModuleType) -> None:
    """What keeps every limit passes, and each target is judged."""
    rounds = [stretches(durability)]
    verdicts = durability.judge_durability(rounds) + durability.judge_arrivals(rounds)
    assert [str(verdict)[:4] for verdict in verdicts] == ["pass"] * 10


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("dead", {"seconds": 11.2}, "the live sink: dead >= 0.9 x live: 0.89"),
        ("dead_journal", {"seconds": 11.2}, "dead_journal >= 0.9 x live_journal: 0.89"),
        ("drain", {"seconds": 10.2}, "events/s: drain >= 1 x fill: 0.98"),
        ("first", {"seconds": 2.1}, "first delivery: first <= 0.2 x drain: 0.21"),
        ("drain", {"rss_bytes": 100_100_000}, "drain <= 100 MB in each round: at most"),
    ],
)
def test_a_limit_of_the_journal_is_a_limit(
    durability: ModuleType, name: str, change: dict[str, Any], words: str
) -> None:
    """Just beyond a limit is a miss, and of that target alone."""
    rounds = [stretches(durability, **{name: change})]
    verdicts = durability.judge_durability(rounds)
    (missed,) = [verdict for verdict in verdicts if not verdict.passed]
    assert words in missed.text


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("live", {"arrived": 999_999}),
        ("dead", {"arrived": None}),
        ("dead_journal", {"duplicates": 1}),
        ("drain", {"arrived": 999_999, "duplicates": 1}),
    ],
)
def test_what_a_journal_held_must_arrive_once(
    durability: ModuleType, name: str, change: dict[str, Any]
) -> None:
    """Lost, doubled or not counted at all is a miss of the stretch that did it."""
    verdicts = durability.judge_arrivals([stretches(durability, **{name: change})])
    (missed,) = [verdict for verdict in verdicts if not verdict.passed]
    assert missed.text.startswith(f"{name} lost")


def test_a_course_that_could_not_run_is_a_miss(durability: ModuleType) -> None:
    """What was not measured misses its targets, and does not hide behind the others."""
    verdicts = durability.judge_durability([]) + durability.judge_arrivals([])
    assert not any(verdict.passed for verdict in verdicts)
    assert all("not measured" in verdict.text for verdict in verdicts)
