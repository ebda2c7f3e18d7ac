"""
The closing table: what is in the files, where every event went, and how to look.

Events are counted in the files, not where they were emitted, so the table shows what
arrived. Only the standard library and the ledger; reads, writes nothing.
"""

from __future__ import annotations

import functools
import glob
import json
import shlex
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING

from bizlog.cli.sales import EXACT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from bizlog.ledger import Ledger

_CHUNK_BYTES = 1024 * 1024
_TOP_COUNTRIES = 5
_FILES = "event_type=*/*/*.jsonl"


def files_of(folder: Path) -> frozenset[Path]:
    """
    List the event files of a folder under their final names.

    Unfinished files count, too: those of a run that was killed are completed by the
    next one and are not its own.
    """
    unfinished = folder.glob("event_type=*/*/.*.jsonl.part")
    named = (part.with_name(part.name[1:].removesuffix(".part")) for part in unfinished)
    return frozenset([*folder.glob(_FILES), *named])


def count_events(folder: Path, before: frozenset[Path]) -> Counter[str]:
    """
    Count the events in the complete files, by type.

    Args:
        folder: Where a file sink wrote, with one event a line.
        before: Files to leave out: those that `files_of` listed before the run.
    """
    counts: Counter[str] = Counter()
    for path in sorted(set(folder.glob(_FILES)) - before):
        event_type = path.parent.parent.name.removeprefix("event_type=")
        counts[event_type] += _count_lines(path)
    return counts


def _count_lines(path: Path) -> int:
    lines = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            lines += chunk.count(b"\n")
    return lines


def all_delivered(ledger: Ledger) -> bool:
    """Whether the ledger is closed and every sink took every event."""
    return ledger.closed and all(
        sink.delivered == sink.offered for sink in ledger.sinks.values()
    )


def closing_table(
    *,
    folder: Path,
    before: frozenset[Path],
    ledger: Ledger,
    seconds: float,
    totals: Mapping[str, Decimal] | None = None,
) -> str:
    """
    Draw the table that ends a demonstration.

    Args:
        folder: Where a file sink wrote.
        before: Files that were there before, as `files_of` listed them.
        ledger: The client's ledger after its shutdown.
        seconds: How long the run took.
        totals: Money by country, if there is any.
    """
    counts = count_events(folder, before)
    events = counts.total()
    parts = [
        _section("Events in the files", _count_rows(counts)),
        _section("Where every event went", str(ledger).splitlines()),
        _section("Sales less returns, by country", _money_rows(totals or {})),
        f"{events:,} events in {seconds:,.1f} s: {events / max(seconds, 1e-9):,.0f}/s",
        f"The files are in {folder}/" + _earlier(before),
        _section("Look at them", _commands(folder)),
    ]
    return "\n\n".join(filter(None, parts))


def _section(title: str, rows: Sequence[str]) -> str:
    return "\n  ".join([title, *rows]) if rows else ""


def _count_rows(counts: Counter[str]) -> list[str]:
    rows = [(name, f"{n:,}") for name, n in counts.most_common()]
    return _aligned([*rows, ("all", f"{counts.total():,}")])


def _money_rows(totals: Mapping[str, Decimal]) -> list[str]:
    if not totals:
        return []
    ranked = sorted(totals.items(), key=lambda item: item[1], reverse=True)
    rest = ranked[_TOP_COUNTRIES:]
    rows = ranked[:_TOP_COUNTRIES]
    if rest:
        rows.append((f"{len(rest)} more", _sum(total for _, total in rest)))
    rows.append(("all", _sum(totals.values())))
    # As many places as the finest amount has: shown in full, never rounded.
    places = max(_places(total) for _, total in rows)
    return _aligned([(name, f"{total:,.{places}f}") for name, total in rows])


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    return functools.reduce(EXACT.add, amounts, Decimal(0))


def _places(amount: Decimal) -> int:
    exponent = amount.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    name_width = max(len(name) for name, _ in rows)
    width = max(len(value) for _, value in rows)
    return [f"{name:<{name_width}}  {value:>{width}}" for name, value in rows]


def _earlier(before: frozenset[Path]) -> str:
    if not before:
        return ""
    return f", beside {len(before):,} of earlier runs, which the lines below see, too"


def _commands(folder: Path) -> list[str]:
    shell = f"{shlex.quote(str(folder))}/event_type="
    pattern = f"{glob.escape(str(folder))}/event_type=order.*/*/*.jsonl"
    program = (
        "import decimal, glob, json; "
        "print(sum(json.loads(line, parse_float=decimal.Decimal)"
        '.get("order_total", 0) '
        f"for name in glob.glob({json.dumps(pattern)}) "
        'for line in open(name, encoding="utf-8")))'
    )
    return [
        f"cat {shell}order.placed/*/*.jsonl | head -n 2",
        f"cat {shell}*/*/*.jsonl | wc -l",
        f"python3 -c {shlex.quote(program)}",
    ]
