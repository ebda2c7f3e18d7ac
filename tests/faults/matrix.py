"""
The fault matrix: bizlog and its peers under the same faults, in one table.

Each cell is one scenario that one contender is put through: real processes, one
loopback HTTP sink (`server.py`), real signals. Every contender runs with its defaults.
bizlog's cells come first, one after the other, since they are judged; then those of the
peers, two at a time. Meanwhile the oracle puts bizlog through random faults.

Then the landings: real invoice lines through bizlog's Event Hubs and Kafka sinks, into
loopback servers and back out, in a table of their own. `landing.py` describes them.

A cell reads `delivered/emitted`, then what came twice, what is kept in dead letters, and
the seconds from the last emit to the end of the process.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import landing
import oracle
import ours
import rows
from brokers import UnavailableError
from cell import Cell
from layout import Cells, misses, render
from scene import Contender, Scene

JOURNAL = Contender(
    "bizlog-journal", "bizlog_journal.py", "bizlog", ours=True, journal=True
)
CONTENDERS = (
    Contender("bizlog", "bizlog_memory.py", "bizlog", ours=True),
    JOURNAL,
    Contender("segment", "segment_track.py", "segment-analytics-python"),
    Contender("posthog", "posthog_capture.py", "posthog"),
    Contender("rudder", "rudder_track.py", "rudder-sdk-python"),
    Contender("snowplow", "snowplow_sync.py", "snowplow-tracker"),
    Contender("snowplow-async", "snowplow_async.py", "snowplow-tracker"),
    Contender("amplitude", "amplitude_track.py", "amplitude-analytics"),
    Contender("mixpanel", "mixpanel_buffered.py", "mixpanel"),
    Contender(
        "opentelemetry",
        "opentelemetry_logs.py",
        "opentelemetry-exporter-otlp-proto-http",
    ),
    Contender("sentry", "sentry_logs.py", "sentry-sdk"),
    Contender(
        "eventhub", "bizlog_eventhub.py", "azure-eventhub", ours=True, lands=True
    ),
    Contender("kafka", "bizlog_kafka.py", "confluent-kafka", ours=True, lands=True),
)

# A peer that is not installed fails the run, unless its reason stands here by its name.
EXCUSED: dict[str, str] = {}


class Row(NamedTuple):
    """
    One scenario.

    Attributes:
        run: Puts a contender through it.
        who: `all` that have the HTTP sink, `bizlog` (both), or `journal` (the one with
            a journal); `sinks` (both that land), or `eventhub` or `kafka` alone.
    """

    run: Callable[[Scene], Cell]
    who: str = "all"

    @property
    def about(self) -> str:
        """What happens in it."""
        return " ".join((self.run.__doc__ or "").split())

    def takes(self, contender: Contender) -> bool:
        """Whether a contender is put through it."""
        if self.lands or contender.lands:
            return (
                self.lands and contender.lands and self.who in {"sinks", contender.name}
            )
        return {
            "all": True,
            "bizlog": contender.ours,
            "journal": contender.journal,
        }[self.who]

    @property
    def lands(self) -> bool:
        """Whether it is a landing."""
        return self.who in {"sinks", "eventhub", "kafka"}


ROWS: dict[str, Row] = {
    "ends": Row(rows.ends),
    "sigterm": Row(rows.sigterm),
    "handled": Row(rows.handled, "bizlog"),
    "plain": Row(ours.plain, "journal"),
    "sigkill": Row(ours.sigkill, "journal"),
    "pending": Row(ours.pending, "journal"),
    "fork": Row(rows.fork),
    "forks": Row(ours.forks, "bizlog"),
    "refuse": Row(rows.refuse),
    "hang": Row(rows.hang),
    "503": Row(rows.busy),
    "429": Row(rows.throttle),
    "400": Row(rows.poison),
    "207": Row(rows.partial, "bizlog"),
    "cut": Row(rows.cut),
    "burst": Row(rows.burst),
    "flood": Row(rows.flood),
    "values": Row(rows.values),
    "full": Row(ours.full, "journal"),
    "eio": Row(ours.eio, "journal"),
    "deleted": Row(ours.deleted, "journal"),
    "clock": Row(ours.clock, "bizlog"),
    "land": Row(landing.land, "sinks"),
    "land-told": Row(landing.told, "sinks"),
    "land-silent": Row(landing.silent, "eventhub"),
    "land-packed": Row(landing.packed, "eventhub"),
    "land-busy": Row(landing.busy, "sinks"),
    "land-refused": Row(landing.refused, "sinks"),
    "land-release": Row(landing.release, "eventhub"),
    "land-modify": Row(landing.modify, "eventhub"),
    "land-detach": Row(landing.detach, "eventhub"),
    "land-close": Row(landing.close, "eventhub"),
    "land-drop": Row(landing.drop, "eventhub"),
    "land-stored": Row(landing.stored, "eventhub"),
    "land-late": Row(landing.late, "eventhub"),
    "land-stall": Row(landing.stall, "sinks"),
    "land-delay": Row(landing.delay, "eventhub"),
    "land-outage": Row(landing.outage, "sinks"),
    "land-down": Row(landing.down, "kafka"),
    "land-sigkill": Row(landing.sigkill, "sinks"),
}
ORACLE = "oracle"

EPILOG = """\
examples:
  python matrix.py                                 everything (about 25 minutes)
  python matrix.py --quick                         less of everything, a short oracle
  python matrix.py --only sigkill,hang             two rows
  python matrix.py --contender bizlog-journal      one column
  python matrix.py --only oracle --seed 7          the oracle, as it ran with that seed
  python matrix.py --contender eventhub,kafka      the landings

exit status: 0 bizlog met all its targets; 1 it missed one, or a peer is not installed;
2 the command line was wrong. What a peer loses fails nothing.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the matrix; return the exit status."""
    options = parse(arguments)
    missing = [line for line in map(why_missing, needed(options)) if line]
    for line in missing:
        print(line, file=sys.stderr)
    cells, verdict = run(options)
    for lands in (False, True):
        draw(options, cells, lands=lands)
    lines = misses(cells)
    if verdict:
        print(f"\n{verdict}")
        lines += [f"MISS  oracle: {fault}" for fault in verdict.faults]
    print("\n".join(["", f"seed {options.seed}", *(lines or ["all targets met"])]))
    if options.json:
        options.json.write_text(as_json(options, cells, lines))
    return 1 if lines or missing else 0


def draw(options: argparse.Namespace, cells: Cells, *, lands: bool) -> None:
    """Print the table of the landings, or that of all else, if anything is in it."""
    names = [each.name for each in options.contenders if each.lands is lands]
    rows = {
        name: ROWS[name].about
        for name in options.rows
        if name != ORACLE and ROWS[name].lands is lands
    }
    if names and any((row, name) in cells for row in rows for name in names):
        print(render(rows, names, cells))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; `rows` and `contenders` of the answer are what is to run."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip(),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", metavar="A,B", help="run these rows, no others")
    add(
        "--contender",
        metavar="A,B",
        help="run these contenders, no others; NAME=FILE puts a file of yours in place",
    )
    add("--quick", action="store_true", help="fewer events and kills, shorter waits")
    add("--seed", type=int, metavar="N", help="where chance begins (drawn)")
    add("--json", type=Path, metavar="FILE", help="write what was found to FILE")
    add(
        "--patience",
        type=float,
        default=1.0,
        metavar="X",
        help="multiply the seconds that targets allow, for slow machines (1)",
    )
    add("--oracle-seconds", type=float, metavar="S", help="how long the oracle goes on")
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1_000_000)
    options.oracle_seconds = options.oracle_seconds or (20 if options.quick else 300)
    try:
        options.rows = choose(options.only, [*ROWS, ORACLE])
        options.contenders = contenders(options.contender)
    except ValueError as error:
        parser.error(str(error))
    return options


def choose(wanted: str | None, known: list[str]) -> list[str]:
    """
    Read a list of names; all where there is none.

    Raises:
        ValueError: A name is unknown.
    """
    names = [name.strip() for name in wanted.split(",")] if wanted else known
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"there is no {', '.join(map(repr, unknown))}; there are {', '.join(known)}"
        )
    return names


def contenders(wanted: str | None) -> list[Contender]:
    """
    Read which contenders run; a name may bring a file of its own.

    Raises:
        ValueError: A name is unknown, or a file does not exist.
    """
    pairs = [item.partition("=") for item in wanted.split(",")] if wanted else []
    files = {name.strip(): file for name, _, file in pairs}
    names = choose(",".join(files) or None, [each.name for each in CONTENDERS])
    for name, file in files.items():
        if file and not Path(file).is_file():
            raise ValueError(f"--contender {name}: there is no file {file}")
    return [
        replace(each, file=str(Path(file).resolve())) if file else each
        for each in CONTENDERS
        if each.name in names
        for file in [files.get(each.name, "")]
    ]


def needed(options: argparse.Namespace) -> list[Contender]:
    """Those contenders that some row of this run puts to the test."""
    wanted = [ROWS[name] for name in options.rows if name != ORACLE]
    return [each for each in options.contenders if any(r.takes(each) for r in wanted)]


def why_missing(contender: Contender) -> str | None:
    """Say that a contender is not installed, unless it is excused."""
    try:
        importlib.metadata.version(contender.distribution)
    except importlib.metadata.PackageNotFoundError:
        if contender.name not in EXCUSED:
            return f"{contender.name}: {contender.distribution} is not installed"
    return None


def run(options: argparse.Namespace) -> tuple[Cells, oracle.Verdict | None]:
    """
    Fill the matrix: bizlog's cells, then the peers' with the oracle beside them.

    bizlog is alone on the machine, unless all is in short: its seconds are judged. Those
    of landings are not, and most of them are spent waiting.
    """
    work = [
        (name, contender)
        for name in options.rows
        if name != ORACLE
        for contender in options.contenders
        if ROWS[name].takes(contender)
    ]
    judged = [each for each in work if each[1].ours and not each[1].lands]
    landings = [each for each in work if each[1].lands]
    shown = [each for each in work if not each[1].ours]
    with ThreadPoolExecutor(3 if options.quick else 1) as pool:
        found = [*pool.map(lambda each: fill(options, *each), judged)]
    with ThreadPoolExecutor(10 if options.quick else 2) as pool:
        found += pool.map(lambda each: fill(options, *each), landings)
    with ThreadPoolExecutor(2) as pool, ThreadPoolExecutor(1) as beside:
        verdict = beside.submit(consult, options)
        found += pool.map(lambda each: fill(options, *each), shown)
    results = dict(zip(map(_key, [*judged, *landings, *shown]), found, strict=True))
    return {key: results[key] for key in map(_key, work)}, verdict.result()


def consult(options: argparse.Namespace) -> oracle.Verdict | None:
    """Ask the oracle, if that is wanted."""
    if ORACLE not in options.rows:
        return None
    [column] = [each for each in options.contenders if each.journal] or [JOURNAL]
    return oracle.consult(
        column, options.seed, options.oracle_seconds, options.patience
    )


def _key(each: tuple[str, Contender]) -> tuple[str, str]:
    return each[0], each[1].name


def fill(options: argparse.Namespace, name: str, contender: Contender) -> Cell | str:
    """Fill one cell; for a peer or a row that cannot be run, say why."""
    cell: Cell | str
    if not contender.ours and (why := EXCUSED.get(contender.name)):
        return why
    start = time.monotonic()
    with tempfile.TemporaryDirectory(
        prefix="bizlog-faults-", ignore_cleanup_errors=True
    ) as folder:
        scene = Scene(
            contender, Path(folder), options.quick, options.patience, options.seed
        )
        try:
            cell = ROWS[name].run(scene)
        except UnavailableError as error:
            cell = str(error)
        except Exception as error:
            cell = Cell(0, misses=[f"the scenario failed: {error!r}"])
    took = time.monotonic() - start
    print(
        f"{name}, {contender.name} ({took:.1f} s): {cell}", file=sys.stderr, flush=True
    )
    return cell


def as_json(
    options: argparse.Namespace,
    cells: Cells,
    lines: Iterable[str],
) -> str:
    """Write what was found, for later analysis."""
    document = {
        "seed": options.seed,
        "quick": options.quick,
        "misses": list(lines),
        "cells": [
            {"row": row, "contender": name}
            | (asdict(cell) if isinstance(cell, Cell) else {"excused": cell})
            for (row, name), cell in cells.items()
        ],
    }
    return json.dumps(document, indent=2) + "\n"


if __name__ == "__main__":
    sys.exit(main())
