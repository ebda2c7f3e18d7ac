"""
`bizlog demo`: see events flow into files, from a made-up shop or a real one's records.

Nothing is lost on the way: a full queue holds the replay back instead of dropping, and
the ledger proves it at the end. Uses a client of its own; the process-wide one stays.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import bizlog
from bizlog.cli.arguments import positive_int
from bizlog.cli.errors import CommandError
from bizlog.cli.interrupt import Interruption
from bizlog.cli.invoices import BadRow, InvoiceFile, Line
from bizlog.cli.made_up import MadeUpShop
from bizlog.cli.progress import Progress
from bizlog.cli.report import all_delivered, closing_table, files_of
from bizlog.cli.sales import Replay

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

OUT = "demo-events"
SECONDS = 5.0
BAD_ROWS_SHOWN = 5

# How long a stuck disk may hold the replay before it gives up.
BLOCK_SECONDS = 30.0
SHUTDOWN_SECONDS = 60.0
_DROP_CHECK_SECONDS = 1.0

DESCRIPTION = """\
Turn invoice lines into business events and write them to files, one folder for each
event type and day. Without --replay the lines are those of a made-up pet shop.

With --replay they come from a CSV file, plain or gzip, with the columns of the data
set "Online Retail" (https://doi.org/10.24432/C5BW33):
  InvoiceNo, StockCode, Description, Quantity, InvoiceDate, UnitPrice, CustomerID,
  Country

Each line becomes one event: product.added_to_cart when sold, order.returned when it
came back. Each sale ends with order.placed.
"""
EPILOG = """\
examples:
  bizlog demo
  bizlog demo --seconds 20 --out shop-events
  bizlog demo --replay online-retail.csv.gz --limit 10000

exit codes: 0 every event is in the files; 1 rows could not be read or events are
missing (the output says which); 2 could not start; 130 ended by Ctrl-C
"""


class Source(Protocol):
    """
    Where invoice lines come from.

    Attributes:
        damage: Why the lines ended early, or None.
    """

    damage: str | None

    @property
    def fraction(self) -> float:
        """How much is done, from 0 to 1."""
        ...

    def __iter__(self) -> Iterator[Line | BadRow]: ...


def add_to(commands: Any) -> None:
    """Add the command to the parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "demo",
        help="see events flow into files",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--replay", type=Path, metavar="FILE", help="replay this CSV file (.csv, .gz)"
    )
    what.add_argument(
        "--seconds",
        type=_positive_float,
        default=SECONDS,
        metavar="N",
        help=f"how long the made-up shop is open (default {SECONDS:g})",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(OUT),
        metavar="DIR",
        help=f"folder for the files (default {OUT})",
    )
    parser.add_argument(
        "--limit", type=positive_int, metavar="N", help="stop after N invoice lines"
    )
    parser.set_defaults(run=run)


def _positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected more than 0 seconds, got {text}")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Replay, show the closing table and say by the exit code whether all is well."""
    out: Path = arguments.out
    with _source(arguments) as (name, source):
        _make_folder(out)
        return _Demo(name, source, out, arguments.limit).run()


def _source(
    arguments: argparse.Namespace,
) -> AbstractContextManager[tuple[str, Source]]:
    if arguments.replay is None:
        return nullcontext(("made-up-shop", MadeUpShop(arguments.seconds)))
    return _opened(arguments.replay)


@contextmanager
def _opened(path: Path) -> Generator[tuple[str, Source]]:
    with InvoiceFile(path) as file:
        yield "online-retail", file


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(
            f"--out {folder}: {error.strerror}: name a folder that can be written to"
        ) from None


class _Demo:
    """One run of the demonstration."""

    def __init__(self, name: str, source: Source, out: Path, limit: int | None) -> None:
        self._source = source
        self._out = out
        self._limit = limit
        self._before = files_of(out)
        self._client = _client(name, out)
        self._replay = Replay(bizlog.get_logger(client=self._client))
        self._bad: list[BadRow] = []
        self._bad_rows = 0
        self._lines_read = 0
        self._interruption = Interruption()

    def run(self) -> int:
        with self._interruption.caught(1), Progress("invoice lines") as progress:
            try:
                self._replay.play(self._lines(progress))
            finally:
                self._client.shutdown_sync(SHUTDOWN_SECONDS)
            seconds = progress.seconds
        print(self._table(seconds))
        complaints = self._complaints()
        if complaints:
            print(*complaints, sep="\n", file=sys.stderr)
        if self._interruption.asked:
            return 130
        return 1 if complaints else 0

    def _lines(self, progress: Progress) -> Iterator[Line]:
        """Hand the readable lines on until the limit, Ctrl-C or a loss."""
        next_check = time.monotonic() + _DROP_CHECK_SECONDS
        for line in self._source:
            if isinstance(line, BadRow):
                self._note(line)
                continue
            yield line
            self._lines_read += 1
            progress.update(self._replay.events, self._done)
            if self._interruption.asked or self._lines_read == self._limit:
                return
            if time.monotonic() >= next_check:
                next_check = time.monotonic() + _DROP_CHECK_SECONDS
                if _dropped(self._client.ledger()):
                    return

    def _done(self) -> float:
        of_limit = self._lines_read / self._limit if self._limit else 0.0
        return max(self._source.fraction, of_limit)

    def _note(self, row: BadRow) -> None:
        self._bad_rows += 1
        if len(self._bad) < BAD_ROWS_SHOWN:
            self._bad.append(row)

    def _table(self, seconds: float) -> str:
        return closing_table(
            folder=self._out,
            before=self._before,
            ledger=self._client.ledger(),
            seconds=seconds,
            totals=self._replay.totals,
        )

    def _complaints(self) -> list[str]:
        found = [self._source.damage] if self._source.damage else []
        if self._bad_rows:
            found.append(f"{self._bad_rows:,} rows could not be read and were left out")
            found += [f"  {row}" for row in self._bad]
            more = self._bad_rows - len(self._bad)
            found += [f"  and {more:,} more"] if more else []
        if not all_delivered(self._client.ledger()):
            found.append(
                "not every event is in the files: the ledger above says how many, "
                f"and {self._out / 'dead-letters'} keeps those that were given up"
            )
        return found


def _client(name: str, out: Path) -> bizlog.BusinessTelemetryClient:
    return bizlog.BusinessTelemetryClient(
        source=name,
        environment="demo",
        service_version=bizlog.__version__,
        sinks=[{"type": "file", "directory": str(out)}],
        dead_letters=str(out / "dead-letters"),
        overflow="block",
        block_timeout=BLOCK_SECONDS,
        development=False,
        strict=False,
    )


def _dropped(ledger: bizlog.Ledger) -> bool:
    return any(sink.dropped for sink in ledger.sinks.values())
