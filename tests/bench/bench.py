"""
bizlog beside its peers: one workload, one run, ratios; exits 1 where a target is missed.

Workload: 100,000 `product.viewed` events with seven fields and three of context, from
one thread as fast as it goes, into a file, the queues large enough to lose nothing.

Each round runs every contender once, in a fresh process, one after the other, starting
with another one each round; a ratio is taken within the round. Reported are medians
with quartiles. `child.py` says what is timed, `workload.py` what counts as delivered.

Contenders (one file each below `contenders/`, which says what was replaced and why):

- bizlog: context, validation, event id, bounded queue, accounting, file sink.
- opentelemetry: the SDK's logger and batch processor; its file exporter is ours.
- stdlib: QueueHandler, QueueListener, python-json-logger, FileHandler.
- segment, posthog: the real clients; only the HTTP post writes to a file instead.
- loguru: `enqueue=True, serialize=True`.
- structlog: JSON by orjson in the caller's thread; no queue.
- floor: orjson and a buffered file; no event id, no time, no queue.

They do not do the same work: each does what its users get when they ask it for an event
in a file, with its defaults or as its documentation advises, and a larger queue. Where
a peer's shutdown waits idly after all is written, that wait is not charged. Emptying a
file's buffer into the operating system is on the clock for all.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from report import (
    Measurement,
    Round,
    Spread,
    Verdict,
    as_markdown,
    as_text,
    judge,
    table,
)

HERE = Path(__file__).resolve().parent
CHILD_TIMEOUT = 900  # seconds; the slowest peer needs 30 for 100,000 events
LATENCY_EVENTS = 20_000  # 20 of them above p99.9
IMPORTS = ("bizlog", "structlog")
IMPORT_ROUNDS = 7
TIMED_IMPORT = (
    "import time; start = time.perf_counter(); import {}; "
    "print(time.perf_counter() - start)"
)

CONTENDERS: dict[str, tuple[str, str]] = {  # name: file, distribution
    "bizlog": ("bizlog_file.py", "bizlog"),
    "opentelemetry": ("opentelemetry_logs.py", "opentelemetry-sdk"),
    "structlog": ("structlog_json.py", "structlog"),
    "stdlib": ("stdlib_json.py", "python-json-logger"),
    "segment": ("segment_track.py", "segment-analytics-python"),
    "posthog": ("posthog_capture.py", "posthog"),
    "loguru": ("loguru_json.py", "loguru"),
    "floor": ("floor.py", "orjson"),
}

EPILOG = """\
examples:
  python bench.py                                  all contenders, 7 rounds (10 minutes)
  python bench.py --only bizlog,opentelemetry      what the target needs (1 minute)
  python bench.py --only floor --events 1000 --rounds 1
  python bench.py --markdown --json runs.json > table.md
  python bench.py --contender mine=./mine.py --only mine,floor

A contender of your own is a file with a function `contender(directory, capacity)` that
is a context manager and yields `Contender(emit, finish)`: begin with a copy of
contenders/floor.py. It must write lines of JSON below `directory`, as *.jsonl.

exit status: 0 all targets met; 1 one was missed, or bizlog lost or doubled an event;
2 the command line was wrong. A contender that is not installed is named and left out,
and a target that needs it is missed. Close other programs: ratios are robust against
a busy machine, latencies are not.
"""


class ChildError(Exception):
    """A contender could not be measured; says why in one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    options = parse(arguments)
    rounds, failures = run_rounds(options)
    imports = measure_imports(options)
    verdicts = judge(rounds, list(options.files))
    print(render(options, rounds, failures, imports, verdicts))
    if options.json:
        options.json.write_text(as_json(options, rounds, failures, imports, verdicts))
    return 0 if all(verdict.passed for verdict in verdicts) else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; `files` of the answer maps names to contenders' files."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip(),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rounds", type=positive, default=7, metavar="N", help="rounds (7)")
    add("--events", type=positive, default=100_000, metavar="N", help="events (100000)")
    add("--only", metavar="A,B", help="run these contenders and no others")
    add("--json", type=Path, metavar="FILE", help="write every measurement to FILE")
    add("--markdown", action="store_true", help="print the table for the README")
    add(
        "--contender",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="add a contender, or put FILE in the place of one; may be repeated",
    )
    options = parser.parse_args(arguments)
    try:
        options.files = choose(options.only, options.contender)
    except ValueError as error:
        parser.error(str(error))
    return options


def positive(text: str) -> int:
    """Read a whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def choose(only: str | None, extra: Sequence[str]) -> dict[str, Path]:
    """
    Decide who runs, and from which file.

    Raises:
        ValueError: A name is unknown, or a file does not exist.
    """
    files = {name: HERE / "contenders" / file for name, (file, _) in CONTENDERS.items()}
    for item in extra:
        name, _, file = item.partition("=")
        if not name or not Path(file).is_file():
            raise ValueError(f"--contender needs NAME=FILE, got {item!r}")
        files[name] = Path(file).resolve()
    names = [name.strip() for name in only.split(",")] if only else list(files)
    unknown = [name for name in names if name not in files]
    if unknown:
        raise ValueError(
            f"no contender {', '.join(map(repr, unknown))}; there are {', '.join(files)}"
        )
    return {name: files[name] for name in names}


def run_rounds(options: argparse.Namespace) -> tuple[list[Round], dict[str, str]]:
    """Run all rounds; a contender that fails is out, its reason is kept."""
    names, failures = list(options.files), dict[str, str]()
    rounds: list[Round] = []
    for number in range(options.rounds):
        shift = number % len(names)
        found: dict[str, Measurement] = {}
        for name in names[shift:] + names[:shift]:
            if name in failures:
                continue
            label = f"round {number + 1}/{options.rounds}  {name}"
            progress(f"{label} ...")
            try:
                found[name] = run_child(options.files[name], options.events)
                progress(f"{label}: {found[name].rate:,.0f} events/s", end=True)
            except ChildError as error:
                failures[name] = str(error)
                progress(f"{label}: {error}", end=True)
        rounds.append(found)
    return rounds, failures


def run_child(file: Path, events: int) -> Measurement:
    """
    Measure one contender in a process of its own.

    Raises:
        ChildError: It could not be imported, raised, or took too long.
    """
    latency_events = min(events, LATENCY_EVENTS)
    with tempfile.TemporaryDirectory(prefix="bizlog-bench-") as directory:
        command = [HERE / "child.py", file, events, latency_events, f"{directory}/out"]
        answer = json.loads(run_python(*map(str, command), directory=directory))
    answer["p999"] = answer.pop("p99.9")
    return Measurement(events=events, **answer)


def run_python(*arguments: str, directory: str) -> str:
    """
    Run this Python in a directory of its own, without settings of bizlog or OTel.

    Raises:
        ChildError: It failed; the last line of its traceback.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("BIZLOG_", "OTEL_", "LOGURU_", "POSTHOG_"))
    }
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=CHILD_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ChildError(f"gave up after {CHILD_TIMEOUT} s") from None
    if done.returncode:
        raise ChildError((done.stderr.strip().splitlines() or ["failed silently"])[-1])
    return done.stdout


def progress(text: str, *, end: bool = False) -> None:
    """Keep one line on a terminal up to date; elsewhere print what is finished."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
    elif end:
        print(text, file=sys.stderr, flush=True)


def measure_imports(options: argparse.Namespace) -> dict[str, list[float]]:
    """Time `import bizlog` and `import structlog` in turn, milliseconds."""
    if not set(IMPORTS) <= set(options.files) or options.contender:
        return {}
    took: dict[str, list[float]] = {name: [] for name in IMPORTS}
    with tempfile.TemporaryDirectory(prefix="bizlog-bench-") as directory:
        for number in range(IMPORT_ROUNDS + 1):
            for name in IMPORTS:
                progress(f"import {name} {number}/{IMPORT_ROUNDS}")
                try:
                    text = run_python(
                        "-c", TIMED_IMPORT.format(name), directory=directory
                    )
                except ChildError:
                    return {}
                if number:  # the first one writes the byte code
                    took[name].append(float(text) * 1_000)
    return took


def show_imports(imports: Mapping[str, Sequence[float]]) -> list[str]:
    """Lay out the import times with their paired ratio."""
    if not imports:
        return []
    ours, theirs = (imports[name] for name in IMPORTS)
    paired = Spread.of(mine / other for mine, other in zip(ours, theirs, strict=True))
    lines = [
        f"import {name}: {Spread.of(imports[name]).show('.0f')} ms" for name in IMPORTS
    ]
    return [*lines, f"import {IMPORTS[0]} / import {IMPORTS[1]}: {paired.show('.2f')}"]


def describe_machine() -> dict[str, str]:
    """Name the processor, the system, Python and the versions of the peers."""
    return {
        "cpu": f"{cpu_model()}, {os.cpu_count()} cores",
        "system": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(
            f"{name} {installed(name)}" for _, name in CONTENDERS.values()
        ),
    }


def cpu_model() -> str:
    """Read the processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()


def installed(name: str) -> str:
    """Name the version of a distribution."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def render(
    options: argparse.Namespace,
    rounds: Sequence[Round],
    failures: Mapping[str, str],
    imports: Mapping[str, Sequence[float]],
    verdicts: Sequence[Verdict],
) -> str:
    """Write the whole report, for a terminal or for the README."""
    if sys.stderr.isatty():
        progress("")
    rows = table(rounds)
    machine = describe_machine()
    head = [f"{key}: {value}" for key, value in machine.items()]
    head.append(f"{options.events:,} events a run, {options.rounds} rounds")
    tail = [f"{name}: not measured: {reason}" for name, reason in failures.items()]
    tail += show_imports(imports)
    tail += [f"{'pass' if ok else 'MISS'}  {text}" for ok, text in verdicts]
    if options.markdown:
        bullets = "\n".join(f"- {line}" for line in [*head, *tail])
        return f"{as_markdown(rows)}\n\n{bullets}"
    return "\n".join([*head, "", as_text(rows), "", *tail]).rstrip()


def as_json(
    options: argparse.Namespace,
    rounds: Sequence[Round],
    failures: Mapping[str, str],
    imports: Mapping[str, Sequence[float]],
    verdicts: Sequence[Verdict],
) -> str:
    """Write every measurement, for later analysis."""
    document: dict[str, Any] = {
        "machine": describe_machine(),
        "events": options.events,
        "rounds": [
            {name: asdict(measurement) for name, measurement in each.items()}
            for each in rounds
        ],
        "failures": dict(failures),
        "import_milliseconds": dict(imports),
        "verdicts": [verdict._asdict() for verdict in verdicts],
    }
    return json.dumps(document, indent=2) + "\n"


if __name__ == "__main__":
    sys.exit(main())
