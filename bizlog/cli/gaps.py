"""
`bizlog gaps`: which events are missing, doubled or out of order, by their numbers.

Every event carries `producer_id` (one for each client of each process) and `sequence`
(1, 2, 3, ... in the order of the calls). Both are enough to name what is not there.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from bizlog.cli.census import Census, report_of
from bizlog.cli.progress import Progress
from bizlog.cli.sources import Sources
from bizlog.cli.streams import add_group
from bizlog.cli.tables import counted
from bizlog.delivery.marks import read_mark

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bizlog.cli.census import ProducerReport
    from bizlog.cli.seen import Range

RANGES_SHOWN = 20

DESCRIPTION = """\
Read events and say for each producer which ones are missing, doubled or out of order.
A FILE is a file or a folder of JSON Lines, plain, gzip or zstd, such as a file sink
writes; give all of them at once, for an event may stand in any. It may also be the URL
of an event hub or a Kafka topic, which is read up to its end.

A producer is one client in one process. It numbers its events from 1, in the order of
the calls. So a number that no file holds is an event that is not there: one that was
dropped or lost, one that went to another sink only, or one that was refused. The ledger
of the process says how many of each there were. Events that were refused or given up
are in the dead letters: name that folder, too, and its events count as buried, not as
missing. What a process lost at its very end leaves no gap: for that, name its journal
folder as well, where a mark says how far the process had counted when it was killed.

missing       no file holds the number (from 1 to the producer's last one)
doubled       the number stands there again: it was delivered twice, which a retry after
              a crash may do; both have the same event_id
out of order  it stands behind a later number in the same file
"""
EPILOG = """\
examples:
  bizlog gaps ./bizlog-events
  bizlog gaps ./bizlog-events ./bizlog-dead-letters --json
  bizlog gaps ./bizlog-events ./journal
  bizlog gaps kafka://localhost:9092/events --partial
  bizlog gaps ./bizlog-events/event_type=order.placed --partial

exit codes: 0 nothing is missing or doubled; 1 something is, or lines could not be read;
2 could not start; 130 ended by Ctrl-C
"""


def add_to(commands: Any) -> None:
    """Add the command to the parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "gaps",
        help="name the events that are missing, doubled or out of order",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="file or folder, or URL of a hub"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--partial",
        action="store_true",
        help="the files are a part: begin at the first number, not at 1",
    )
    add_group(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Read everything, say what is missing, and say so by the exit code."""
    with Sources(arguments.files, arguments.group) as sources:
        return _count(arguments, sources)


def _count(arguments: argparse.Namespace, sources: Sources) -> int:
    for note in sources.notes():
        print(f"bizlog: note: {note}", file=sys.stderr)
    census = _read(sources)
    reports = [
        report_of(producer, partial=arguments.partial)
        for producer in census.producers.values()
    ]
    if arguments.json:
        print(_as_json(reports, census, sources))
    else:
        print(*_as_text(reports, census), sep="\n")
    complaints = [*sources.damages, *census.bad_lines.told()]
    if complaints:
        print(*complaints, sep="\n", file=sys.stderr)
    faulty = any(report.missing or report.doubled for report in reports)
    return 1 if faulty or complaints else 0


def _read(sources: Sources) -> Census:
    census = Census()
    for mark in filter(None, map(read_mark, sources.marks)):
        census.reach(mark.producer_id, mark.offered)
    lines = 0
    with Progress("reading") as progress:
        for source in sources.files:
            for entry in source.entries():
                census.add(entry)
                lines += 1
                progress.update(lines, lambda: sources.fraction)
    return census


def _as_json(reports: list[ProducerReport], census: Census, sources: Sources) -> str:
    return json.dumps(
        {
            "producers": [msgspec.to_builtins(report) for report in reports],
            "unnumbered": census.unnumbered,
            "bad_lines": census.bad_lines.count,
            "damaged_files": sources.damages,
            "unfinished_files": len(sources.unfinished),
        },
        indent=2,
    )


def _as_text(reports: list[ProducerReport], census: Census) -> Iterator[str]:
    for report in reports:
        yield from _lines_of(report)
    events = sum(report.events for report in reports)
    missing = sum(report.missing for report in reports)
    doubled = sum(report.doubled for report in reports)
    astray = sum(report.out_of_order for report in reports)
    yield (
        f"{counted(events, 'event')} of {counted(len(reports), 'producer')}: "
        f"{missing:,} missing, "
        f"{doubled:,} doubled, {astray:,} out of order"
    )
    if census.unnumbered:
        more = counted(census.unnumbered, "event")
        yield f"and {more} without producer_id and sequence, of other programs"


def _lines_of(report: ProducerReport) -> Iterator[str]:
    span = f"{report.first:,}" if report.first else "none"
    yield (
        f"producer {report.producer_id}: {counted(report.events, 'event')}, "
        f"numbers {span} to {report.last:,}"
    )
    if report.missing:
        yield f"  missing {report.missing:,}: {_shown(report.missing_ranges)}"
    if report.buried:
        yield f"  in the dead letters only {report.buried:,}"
    if report.doubled:
        yield f"  doubled {report.doubled:,}: {', '.join(report.doubled_at)}"
    if report.out_of_order:
        places = ", ".join(report.out_of_order_at)
        yield f"  out of order {report.out_of_order:,}: {places}"


def _shown(ranges: list[Range]) -> str:
    shown = [
        f"{start:,}" if start == end else f"{start:,} to {end:,}"
        for start, end in islice(ranges, RANGES_SHOWN)
    ]
    more = len(ranges) - len(shown)
    return "; ".join(shown) + (f"; and {more:,} ranges more (--json)" if more else "")
