"""
bizlog beside its peers and alone, in one run; exits 1 where a target is missed.

Workload: 100,000 `product.viewed` events with seven fields and three of context, from
one thread as fast as it goes, into a file, the queues large enough to lose nothing.

Each round runs every contender once, in a fresh process, one after the other, starting
with another one each round; a ratio is taken within the round. Reported are medians
with quartiles. `child.py` says what is timed, `arrivals.py` what counts as delivered,
`report.py` what the targets are.

Contenders (one file each below `contenders/`, which says what was replaced and why):

- bizlog: context, validation, event id, bounded queue, accounting, file sink.
- journal, journal_full: the same with a journal on disk, `normal` and `full`.
- opentelemetry: the SDK's logger and batch processor; its file exporter is ours.
- stdlib: QueueHandler, QueueListener, python-json-logger, FileHandler.
- segment, posthog: the real clients; only the HTTP post writes to a file instead.
- loguru: `enqueue=True, serialize=True`.
- structlog: JSON by orjson in the caller's thread; no queue.
- by_hand: bizlog's event, written with orjson and a buffered file; no checks, no queue.
- floor: orjson and a buffered file; no event id, no time, no queue.

They do not do the same work: each does what its users get when they ask it for an event
in a file, with its defaults or as its documentation advises, and a larger queue. Where
a peer's shutdown waits idly after all is written, that wait is not charged. Emptying a
file's buffer into the operating system is on the clock for all.

The ratio to the floor is reported and not judged: the floor writes an event of half the
size, without id, time, source and sequence, into a dictionary that it takes from its
caller, so a share of its rate says what such an event costs and not what bizlog adds.
What bizlog adds is judged against `by_hand`, which writes the same event: the limit of
0.75 x was set where a floor had measured 4.25 x OpenTelemetry, which is what `by_hand`
reaches here and the bare floor exceeds more than three times.

Further sections: the time of `import bizlog` beside `import structlog`, in turn; bizlog
alone with more events, more threads and less room, which `scaling.py` describes; and
what its journal does beside a dead sink and after a death, which `durability.py` does;
and its sinks for Event Hubs and Kafka beside loops by hand, which `hubs.py` describes.
Those rounds are run once more where a loop by hand spread too far, and the second ones
count.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from durability import (
    Stretch,
    courses,
    durability_table,
    in_rounds,
    judge_arrivals,
    judge_durability,
)
from hub_servers import measure_passage
from hubs import (
    ONCE,
    Passage,
    compare_hubs,
    hubs_table,
    judge_hubs,
    judge_stored,
    restless,
)
from hubs import courses as passages
from layout import Section, render_markdown, render_text
from machine import describe_machine
from processes import (
    HERE,
    ChildError,
    measure_contender,
    measure_course,
    measure_scenario,
    time_import,
)
from report import (
    IMPORT_TARGET,
    Measurement,
    Spread,
    Verdict,
    compare,
    judge,
    judge_losses,
    judge_speed,
    table,
    unjudged,
)
from scaling import Outcome, judge_counts, judge_scaling, scaling_table, scenarios

T = TypeVar("T")

IMPORTS = (IMPORT_TARGET.contender, IMPORT_TARGET.base)
HUBS = "hubs"
HUB_ROWS = {f"{HUBS}/{name}": name for name in passages(1)}
SECTIONS = ("imports", "scaling", "durability", HUBS)

HUB_PACKAGES = ("azure-eventhub", "python-qpid-proton", "confluent-kafka", "noida-db")

CONTENDERS: dict[str, tuple[str, str]] = {  # name: file, distribution
    "bizlog": ("bizlog_file.py", "bizlog"),
    "journal": ("bizlog_journal.py", "bizlog"),
    "journal_full": ("bizlog_full.py", "bizlog"),
    "opentelemetry": ("opentelemetry_logs.py", "opentelemetry-sdk"),
    "structlog": ("structlog_json.py", "structlog"),
    "stdlib": ("stdlib_json.py", "python-json-logger"),
    "segment": ("segment_track.py", "segment-analytics-python"),
    "posthog": ("posthog_capture.py", "posthog"),
    "loguru": ("loguru_json.py", "loguru"),
    "by_hand": ("by_hand.py", "orjson"),
    "floor": ("floor.py", "orjson"),
}

EPILOG = """\
examples:
  python bench.py                                  everything, 7 rounds (45 minutes)
  python bench.py --quick                          3 small rounds (2 to 3 minutes)
  python bench.py --only bizlog,opentelemetry      two contenders (1 minute)
  python bench.py --only imports,scaling           bizlog alone (7 minutes)
  python bench.py --only durability                its journal (6 minutes)
  python bench.py --only hubs                      Event Hubs and Kafka (10 minutes)
  python bench.py --only hubs/by_hand,hubs/amqp    two rows of it
  python bench.py --only floor --events 1000 --rounds 1
  python bench.py --markdown --json runs.json > table.md
  python bench.py --contender mine=./mine.py --only mine,floor

A contender of your own is a file with a function `contender(directory, capacity)` that
is a context manager and yields `Contender(emit, finish)`: begin with a copy of
contenders/floor.py. It must write lines of JSON below `directory`, as *.jsonl.

exit status: 0 all targets met; 1 one was missed, or bizlog lost or doubled an event;
2 the command line was wrong. A contender that is not installed is named and left out,
and a target that needs it is missed. With --quick only events that bizlog lost, doubled
or failed to count are a miss. Close other programs: ratios are robust against a busy
machine, latencies are not.
"""


@dataclass
class Runs(Generic[T]):
    """
    What some rounds found, by name.

    Attributes:
        rounds: One mapping a round.
        failures: Why a name is missing from them.
        notes: What else there is to say of them.
    """

    rounds: list[dict[str, T]] = field(default_factory=list[dict[str, T]])
    failures: dict[str, str] = field(default_factory=dict[str, str])
    notes: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class Results:
    """Everything that one run of the benchmark measured."""

    contenders: Runs[Measurement]
    imports: Runs[float]
    scaling: Runs[Outcome]
    durability: Runs[dict[str, Stretch]]
    hubs: Runs[Passage]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    options = parse(arguments)
    results = run(options)
    if sys.stderr.isatty():
        progress("")
    sections = lay_out(options, results)
    head = describe_run(options)
    render = render_markdown if options.markdown else render_text
    print(render([f"{key}: {value}" for key, value in head.items()], sections))
    verdicts = [verdict for section in sections for verdict in section.verdicts]
    if options.json:
        options.json.write_text(as_json(head, results, verdicts))
    return 1 if any(verdict.passed is False for verdict in verdicts) else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """
    Read the command line.

    `files` of the answer maps the contenders' names to their files; `sections` holds
    what else is to run, and `hubs` the rows of that section.
    """
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip(),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rounds", type=positive, metavar="N", help="rounds (7)")
    add("--events", type=positive, metavar="N", help="events (100000)")
    add("--quick", action="store_true", help="3 rounds of 10000 events, losses judged")
    add("--only", metavar="A,B", help="run these contenders and sections, no others")
    add("--json", type=Path, metavar="FILE", help="write every measurement to FILE")
    add("--markdown", action="store_true", help="print the tables for the README")
    add(
        "--contender",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="add a contender, or put FILE in the place of one; may be repeated",
    )
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (3 if options.quick else 7)
    options.events = options.events or (10_000 if options.quick else 100_000)
    try:
        options.files, options.sections, options.hubs = choose(
            options.only, options.contender
        )
    except ValueError as error:
        parser.error(str(error))
    return options


def positive(text: str) -> int:
    """Read a whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def choose(
    only: str | None, extra: Sequence[str]
) -> tuple[dict[str, Path], list[str], list[str]]:
    """
    Decide which contenders run, from which files, which sections and rows of `hubs`.

    Raises:
        ValueError: A name is unknown, or a file does not exist.
    """
    files = {name: HERE / "contenders" / file for name, (file, _) in CONTENDERS.items()}
    for item in extra:
        name, _, file = item.partition("=")
        if not name or name in SECTIONS or not Path(file).is_file():
            raise ValueError(f"--contender needs NAME=FILE, got {item!r}")
        files[name] = Path(file).resolve()
    known = [*files, *SECTIONS]
    names = [name.strip() for name in only.split(",")] if only else known
    unknown = [name for name in names if name not in {*known, *HUB_ROWS}]
    if unknown:
        raise ValueError(
            f"no contender {', '.join(map(repr, unknown))}; there are {', '.join(known)}"
        )
    return (
        {name: files[name] for name in names if name in files},
        [name for name in names if name in SECTIONS],
        [row for name, row in HUB_ROWS.items() if name in names or HUBS in names],
    )


def run(options: argparse.Namespace) -> Results:
    """Measure all that was asked for, one process after the other."""
    return Results(
        contenders=run_rounds(
            options.rounds,
            {
                name: partial(measure_contender, file, options.events)
                for name, file in options.files.items()
            },
            lambda one: f"{one.rate:,.0f} events/s",
        ),
        imports=run_imports(options),
        scaling=run_rounds(
            options.rounds,
            {
                name: partial(measure_scenario, scenario)
                for name, scenario in scenarios(options.events).items()
                if "scaling" in options.sections
            },
            lambda one: f"{one.rate:,.0f} events/s",
        ),
        durability=run_rounds(
            options.rounds,
            {
                name: partial(measure_course, course)
                for name, course in courses(options.events).items()
                if "durability" in options.sections
            },
            lambda found: ", ".join(
                f"{name} {one.seconds:.2f} s" for name, one in found.items()
            ),
        ),
        hubs=run_hubs(options),
    )


def run_hubs(options: argparse.Namespace) -> Runs[Passage]:
    """Send to hubs and Kafka: in rounds, once more if they are restless; some but once."""
    rounds = 1 if options.quick else options.rounds  # starting servers takes its time
    runs = run_passages(options, rounds, once=False)
    if why := restless(runs.rounds):
        runs = run_passages(options, rounds, once=False)
        runs.notes.append(f"run twice, these are the second rounds: {', '.join(why)}")
    single = run_passages(options, 1, once=True)
    runs.failures |= single.failures
    runs.rounds += single.rounds
    return runs


def run_passages(
    options: argparse.Namespace, rounds: int, *, once: bool
) -> Runs[Passage]:
    """Run the courses that are due in every round, or those that are due once."""
    return run_rounds(
        rounds,
        {
            name: partial(measure_passage, name, course)
            for name, course in passages(options.events).items()
            if name in options.hubs and (name in ONCE) is once
        },
        lambda one: f"{one.rate:,.0f} events/s",
    )


def run_imports(options: argparse.Namespace) -> Runs[float]:
    """Time the imports in turn; a first round, which writes byte code, is left out."""
    wanted = IMPORTS if "imports" in options.sections else ()
    runs = run_rounds(
        # A tenth of a second each: cheap enough for thrice as many.
        3 * options.rounds + 1,
        {name: partial(time_import, name) for name in wanted},
        lambda took: f"import {took:.0f} ms",
    )
    del runs.rounds[:1]
    return runs


def run_rounds(
    rounds: int, calls: Mapping[str, Callable[[], T]], show: Callable[[T], str]
) -> Runs[T]:
    """
    Run all rounds, each beginning with another name.

    Args:
        rounds: How many.
        calls: Measures the one that the name stands for; once it has failed it is out.
        show: Says in short what was found, for the eyes of who waits.
    """
    runs, names = Runs[T](), list(calls)
    for number in range(rounds if names else 0):
        shift = number % len(names)
        found: dict[str, T] = {}
        for name in names[shift:] + names[:shift]:
            if name in runs.failures:
                continue
            label = f"round {number + 1}/{rounds}  {name}"
            progress(f"{label} ...")
            try:
                found[name] = calls[name]()
                progress(f"{label}: {show(found[name])}", end=True)
            except ChildError as error:
                runs.failures[name] = str(error)
                progress(f"{label}: {error}", end=True)
        runs.rounds.append(found)
    return runs


def progress(text: str, *, end: bool = False) -> None:
    """Keep one line on a terminal up to date; elsewhere print what is finished."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
    elif end:
        print(text, file=sys.stderr, flush=True)


def lay_out(options: argparse.Namespace, results: Results) -> list[Section]:
    """Judge the results; a section for each part that was asked for."""
    sections = [lay_out_contenders(options, results.contenders)]
    if "imports" in options.sections:
        sections.append(lay_out_imports(options, results.imports))
    if "scaling" in options.sections:
        sections.append(lay_out_scaling(options, results.scaling))
    if "durability" in options.sections:
        sections.append(lay_out_durability(options, results.durability))
    if options.hubs:
        sections.append(lay_out_hubs(options, results.hubs))
    return sections


def lay_out_contenders(options: argparse.Namespace, runs: Runs[Measurement]) -> Section:
    """Lay out bizlog beside its peers."""
    asked = list(options.files)
    verdicts = if_judged(options, judge_speed(runs.rounds, asked))
    verdicts += compare(runs.rounds, asked)
    if "bizlog" in asked:
        verdicts.append(judge_losses(runs.rounds, "bizlog"))
    return Section(table(runs.rounds) if asked else [], excuses(runs), verdicts)


def lay_out_imports(options: argparse.Namespace, runs: Runs[float]) -> Section:
    """Lay out the import times with their paired ratio."""
    took = {
        name: [each[name] for each in runs.rounds if name in each] for name in IMPORTS
    }
    lines = [
        f"import {name}: {Spread.of(ms):.0f} ms" for name, ms in took.items() if ms
    ]
    verdicts = if_judged(options, [judge(runs.rounds, IMPORT_TARGET)])
    return Section([], [*excuses(runs), *lines], verdicts)


def lay_out_scaling(options: argparse.Namespace, runs: Runs[Outcome]) -> Section:
    """Lay out bizlog alone."""
    verdicts = if_judged(options, judge_scaling(runs.rounds))
    verdicts += judge_counts(runs.rounds)
    return Section(scaling_table(runs.rounds), excuses(runs), verdicts)


def lay_out_durability(
    options: argparse.Namespace, runs: Runs[dict[str, Stretch]]
) -> Section:
    """Lay out what a journal does."""
    rounds = in_rounds(runs.rounds)
    verdicts = if_judged(options, judge_durability(rounds))
    verdicts += judge_arrivals(rounds)
    return Section(durability_table(rounds), excuses(runs), verdicts)


def lay_out_hubs(options: argparse.Namespace, runs: Runs[Passage]) -> Section:
    """Lay out what reaches hubs and Kafka."""
    verdicts = if_judged(options, judge_hubs(runs.rounds, options.hubs))
    verdicts += compare_hubs(runs.rounds, options.hubs)
    verdicts += judge_stored(runs.rounds, options.hubs)
    notes = [*runs.notes, *excuses(runs)]
    return Section(hubs_table(runs.rounds), notes, verdicts)


def if_judged(options: argparse.Namespace, verdicts: list[Verdict]) -> list[Verdict]:
    """Judge nothing about speed and memory in a quick run: it is too short for that."""
    return unjudged(verdicts) if options.quick else verdicts


def excuses(runs: Runs[T]) -> list[str]:
    """Say what could not be measured, and why."""
    return [f"{name}: not measured: {why}" for name, why in runs.failures.items()]


def describe_run(options: argparse.Namespace) -> dict[str, str]:
    """Say what was run, and on what."""
    names = [name for _, name in CONTENDERS.values()]
    machine = describe_machine(dict.fromkeys([*names, *HUB_PACKAGES]))
    size = f"{options.events:,} events a run, {options.rounds} rounds"
    return {**machine, "size": size}


def as_json(
    head: Mapping[str, str], results: Results, verdicts: Sequence[Verdict]
) -> str:
    """Write every measurement, for later analysis."""
    document: dict[str, Any] = {
        "run": dict(head),
        **asdict(results),
        "verdicts": [verdict._asdict() for verdict in verdicts],
    }
    return json.dumps(document, indent=2) + "\n"


if __name__ == "__main__":
    sys.exit(main())
