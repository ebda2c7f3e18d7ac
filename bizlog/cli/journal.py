"""
`bizlog journal`: list the journals of a folder, and deliver what dead processes left.

Listing only looks. Draining owns a file as a service does, so the two never meet.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bizlog.cli import journal_drain
from bizlog.cli.status import add_folder, duration, is_well, look
from bizlog.cli.tables import aligned, counted

if TYPE_CHECKING:
    from bizlog.delivery.inspection import JournalInfo

DESCRIPTION = """\
A journal is a file in which a process keeps events until every sink has them. When the
process dies, the file stays; the next start of the service takes it over.

  ls      list the journals (bizlog status shows more)
  drain   deliver what dead processes left, where no service will start any more

DIR is by default the setting journal: BIZLOG_JOURNAL or bizlog.toml.
"""
EPILOG = """\
examples:
  bizlog journal ls ./journal
  bizlog journal drain ./journal --sink https://collector.example/events/batch
  bizlog journal drain ./journal --lane file --sink file:./bizlog-events

exit codes: 0 all is well; 1 a journal is quarantined or not drained, or events were
refused (the output says which); 2 could not start; 130 ended by Ctrl-C
"""
DRAIN = """\
Deliver to one sink what is pending in the journals of dead processes, and remove each
file when all its sinks are served. Without --lane an event is sent when any of them
lacks it, so a sink that has it already may see it again, under the same event_id.
Journals of living processes are left alone: they deliver themselves.
"""


def add_to(commands: Any) -> None:
    """Add the command to the parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "journal",
        help="list journals, or deliver what dead processes left",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    ls = verbs.add_parser("ls", help="list the journals", description="List them.")
    add_folder(ls)
    ls.set_defaults(run=list_journals)
    drain = verbs.add_parser(
        "drain",
        help="deliver what dead processes left",
        description=DRAIN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_folder(drain)
    drain.add_argument("--sink", required=True, metavar="URL", help="where to")
    drain.add_argument(
        "--lane", metavar="NAME", help="only what this sink lacks; its name in status"
    )
    drain.add_argument(
        "--dead-letters",
        type=Path,
        metavar="DIR",
        help="folder for what the sink refuses (default: the setting dead_letters)",
    )
    drain.set_defaults(run=drain_journals)


def list_journals(arguments: argparse.Namespace) -> int:
    """Print one line a journal."""
    folder, journals = look(arguments)
    print(f"{folder}: {counted(len(journals), 'journal')}")
    if journals:
        heads = ("journal", "state", "process", "age", "bytes", "events", "pending", "")
        print(*aligned([heads, *map(_row, journals)]), sep="\n")
    return 0 if all(map(is_well, journals)) else 1


def _row(journal: JournalInfo) -> tuple[str, ...]:
    made = journal.created_at
    readable = journal.problem is None
    return (
        journal.journal_id,
        journal.state,
        "" if journal.pid is None else str(journal.pid),
        "" if made is None else duration(max(0.0, time.time() - made)),
        f"{journal.size:,}",
        f"{journal.end - journal.start:,}" if readable else "",
        f"{journal_drain.most_pending(journal):,}" if readable else "",
        journal.problem or "",
    )


def drain_journals(arguments: argparse.Namespace) -> int:
    """Deliver what is pending in orphans; print the ledger and what was left alone."""
    folder, journals = look(arguments)
    for journal in journals:
        if journal.state == "live":
            print(
                f"bizlog: {journal.path.name} belongs to process {journal.pid}, which "
                "runs and delivers it; left alone",
                file=sys.stderr,
            )
    orphans = [journal for journal in journals if journal.state == "orphan"]
    drain = journal_drain.Drain(
        folder,
        sink=arguments.sink,
        lane=arguments.lane,
        dead_letters=arguments.dead_letters,
    )
    code = drain.run(orphans)
    aside = sum(journal.state == "quarantined" for journal in journals)
    if aside:
        print(f"{counted(aside, 'journal')} in quarantine left alone", file=sys.stderr)
    return code or int(aside > 0)
