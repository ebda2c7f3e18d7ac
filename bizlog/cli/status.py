"""
`bizlog status`: what the journals of a folder hold, and what their ledgers say.

Only looks; the processes that write there are not disturbed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bizlog.cli.errors import CommandError
from bizlog.cli.places import JOURNAL, configured_folder
from bizlog.cli.tables import counted
from bizlog.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bizlog.delivery.inspection import JournalInfo

# A process notes its ledger once a second, maybe in the middle of an event: one that
# does not balance is looked at again before it is told.
LOOK_AGAIN_SECONDS = 1.5

_DAY, _HOUR, _MINUTE = 86_400, 3_600, 60

DESCRIPTION = """\
Show the journals in a folder: whose they are, what waits in them for which sink and
since when, and the ledger that each process noted last:

  offered = delivered + rejected + dropped + dead_lettered + pending

live         its process runs and delivers
orphan       its process is gone; the next start of the service takes it over, or
             bizlog journal drain
quarantined  its file is damaged or not ours; it was put aside and is not touched

DIR is by default the setting journal: BIZLOG_JOURNAL or bizlog.toml. The processes are
not disturbed; a ledger may be a second old.
"""
EPILOG = """\
examples:
  bizlog status ./journal
  bizlog status ./journal --json

exit codes: 0 all is well; 1 a journal is quarantined or unreadable, or a ledger does
not balance; 2 could not start; 130 ended by Ctrl-C
"""


def add_to(commands: Any) -> None:
    """Add the command to the parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "status",
        help="show what waits in a journal folder, and the ledgers",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_folder(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add the journal folder to a command's arguments."""
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        metavar="DIR",
        help="the journal folder (default: the setting journal)",
    )


def look(arguments: argparse.Namespace) -> tuple[Path, list[JournalInfo]]:
    """
    Look into the folder that is named or set.

    Raises:
        CommandError: It cannot be read.
    """
    from bizlog.delivery.inspection import inspect  # noqa: PLC0415  # loads sqlite3

    folder: Path = arguments.folder or configured_folder(JOURNAL)
    try:
        return folder, inspect(folder)
    except FileNotFoundError:
        raise CommandError(
            f"{folder}: there is no such folder, so no process has journaled there"
        ) from None
    except OSError as error:
        raise CommandError(f"{folder}: cannot be read: {error.strerror}") from None


def ledger_of(journal: JournalInfo) -> Ledger | None:
    """Read the ledger that the journal's process noted last; None without one."""
    try:
        return msgspec.json.decode(journal.notes["ledger"], type=Ledger)
    except (KeyError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def is_well(journal: JournalInfo) -> bool:
    """Whether a journal can be read and its ledger balances."""
    ledger = ledger_of(journal)
    return journal.problem is None and (ledger is None or ledger.balanced)


def run(
    arguments: argparse.Namespace, sleep: Callable[[float], None] = time.sleep
) -> int:
    """Look, print what is there, and say by the exit code whether all is well."""
    folder, journals = look(arguments)
    if not all(map(_balances, journals)):
        sleep(LOOK_AGAIN_SECONDS)
        folder, journals = look(arguments)
    now = time.time()
    if arguments.json:
        told = {"folder": str(folder), "journals": [_as_json(j, now) for j in journals]}
        print(json.dumps(told, indent=2))
    else:
        print(*_as_text(folder, journals, now), sep="\n")
    return 0 if all(map(is_well, journals)) else 1


def _balances(journal: JournalInfo) -> bool:
    ledger = ledger_of(journal)
    return ledger is None or ledger.balanced


def _as_json(journal: JournalInfo, now: float) -> dict[str, Any]:
    ledger = ledger_of(journal)
    return {
        "journal_id": journal.journal_id,
        "path": str(journal.path),
        "state": journal.state,
        "problem": journal.problem,
        "pid": journal.pid,
        "age_seconds": _since(journal.created_at, now),
        "bytes": journal.size,
        "events": journal.end - journal.start,
        "pending": journal.pending,
        "oldest_pending_seconds": _since(journal.oldest_at, now),
        "ledger": None if ledger is None else msgspec.to_builtins(ledger.sinks),
        "balanced": None if ledger is None else ledger.balanced,
    }


def _since(moment: float | None, now: float) -> float | None:
    return None if moment is None else round(max(0.0, now - moment), 3)


def _as_text(
    folder: Path, journals: Sequence[JournalInfo], now: float
) -> Iterator[str]:
    states = [journal.state for journal in journals]
    kinds = [f"{states.count(s)} {s}" for s in ("live", "orphan", "quarantined")]
    size = sum(journal.size for journal in journals)
    yield (
        f"{folder}: {counted(len(journals), 'journal')} ({', '.join(kinds)}), "
        f"{counted(size, 'byte')}"
    )
    for journal in journals:
        yield ""
        yield from _lines_of(journal, now)


def _lines_of(journal: JournalInfo, now: float) -> Iterator[str]:
    pid = f", process {journal.pid}" if journal.pid is not None else ""
    yield f"{journal.journal_id}  {journal.state}{pid}"
    yield f"  file     {journal.path} ({counted(journal.size, 'byte')})"
    if journal.problem is not None:
        yield f"  problem  {journal.problem}"
        return
    age = duration(_since(journal.created_at, now))
    yield f"  holds    {counted(journal.end - journal.start, 'event')}, made {age} ago"
    yield f"  pending  {_pending(journal, now)}"
    ledger = ledger_of(journal)
    if ledger is None:
        yield "  ledger   none was noted"
        return
    yield "  ledger   as its process noted it last:"
    yield from (f"    {line}" for line in str(ledger).splitlines())


def _pending(journal: JournalInfo, now: float) -> str:
    lanes = [f"{name} {events:,}" for name, events in journal.pending.items()]
    oldest = _since(journal.oldest_at, now)
    since = "" if oldest is None else f"; the oldest since {duration(oldest)}"
    return f"{', '.join(lanes) or 'no sink has begun'}{since}"


def duration(seconds: float | None) -> str:
    """Write a time span as people say it, in at most two units."""
    if seconds is None:
        return "an unknown time"
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min {seconds % _MINUTE:.0f} s"
    if seconds < _DAY:
        return f"{seconds // _HOUR:.0f} h {seconds % _HOUR // _MINUTE:.0f} min"
    return f"{seconds // _DAY:,.0f} d {seconds % _DAY // _HOUR:.0f} h"
