"""
`bizlog tail`: print events as they arrive at an event hub or a Kafka topic.

Only reads: nothing is committed, and other readers are not disturbed. What is no event
of bizlog's is counted and told on standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import orjson

from bizlog.cli.arguments import positive_int
from bizlog.cli.entries import BadLine, BadLines, EventLine
from bizlog.cli.interrupt import Interruption
from bizlog.cli.moments import parse_moment
from bizlog.cli.selection import Query, Selection
from bizlog.cli.streams import add_group, entries_of, open_stream
from bizlog.cli.tables import counted
from bizlog.cli.where import Where
from bizlog.exceptions import PermanentSinkError
from bizlog.sinks import Batch, make_sink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from bizlog.cli.streams import Message, Span, Start, Stream
    from bizlog.sinks import Record

INTERRUPTED = 130

DESCRIPTION = """\
Print events as they arrive, from all partitions, until Ctrl-C. SOURCE is the URL of a
sink, with its options; the reader is who the sink would be, for instance by
BIZLOG_EVENTHUB_CONNECTION_STRING.

On a terminal an event is a line for people, elsewhere its JSON as it is stored. Events
of one partition come in their order. Several that share a message come one by one; what
is no event is counted and told on standard error. Nothing is committed.
"""
EPILOG = """\
examples:
  bizlog tail eventhub://NAME.servicebus.windows.net/events --type 'order.*'
  bizlog tail eventhub://localhost:5672/events --from earliest --limit 10
  bizlog tail kafka://localhost:9092/events --from 2h --idle 5 > events.jsonl

exit codes: 0 --limit or --idle ended it; 2 could not start, or the source broke;
130 ended by Ctrl-C
"""


def add_to(commands: Any) -> None:
    """Add the command to the parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "tail",
        help="print events as they arrive at a hub or topic",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SOURCE", help="eventhub://… or kafka://…")
    parser.add_argument(
        "--from",
        dest="start",
        default="latest",
        metavar="T",
        help="earliest, latest (default), or what arrived since: a date, a time, or "
        "2h, 3d (ago)",
    )
    parser.add_argument(
        "--type",
        dest="types",
        action="append",
        default=[],
        metavar="NAME",
        help="events of this name or pattern ('order.*'); may be given several times",
    )
    parser.add_argument(
        "--where", metavar="EXPR", help="events for which this holds, as for replay"
    )
    parser.add_argument(
        "--limit", type=positive_int, metavar="N", help="end after so many events"
    )
    parser.add_argument(
        "--idle",
        type=positive_seconds,
        metavar="SECONDS",
        help="end when no message came for so long",
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON on a terminal, too"
    )
    add_group(parser)
    parser.set_defaults(run=run)


def positive_seconds(text: str) -> float:
    """Read seconds, more than none."""
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected seconds above 0, got {text}")
    return seconds


def run(arguments: argparse.Namespace) -> int:
    """Print until told otherwise, then say what was no event."""
    if arguments.where is not None:
        Where(arguments.where)
    start_of = parse_start(arguments.start)
    stream = open_stream(arguments.source, arguments.group)
    interruption = Interruption()
    tail = Tail(
        stream,
        {span.partition: start_of(span) for span in stream.spans()},
        Query(types=tuple(arguments.types), where=arguments.where),
        limit=arguments.limit,
        idle=arguments.idle,
    )
    show = printer(as_json=arguments.json)
    try:
        with interruption.caught(times=1):
            for records in tail.batches(lambda: interruption.asked):
                show(records)
    finally:
        stream.close()
        print(*tail.told(), sep="\n", end="", file=sys.stderr)
    return INTERRUPTED if interruption.asked else 0


def parse_start(text: str) -> Callable[[Span], Start]:
    """
    Read where to begin: says it for each partition.

    Raises:
        CommandError: It cannot be understood.
    """
    if text == "earliest":
        return lambda span: span.first
    if text == "latest":
        return lambda span: span.end
    moment = parse_moment("--from", text, dt.datetime.now(dt.UTC))
    return lambda _: dt.datetime.fromisoformat(moment)


class Tail:
    """
    Takes the events out of what comes.

    Args:
        stream: What is read.
        starts: Where to begin, by partition.
        query: Which events are wanted.
        limit: How many; None without end.
        idle: Seconds without a message that end it; None without end.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        stream: Stream,
        starts: dict[str, Start],
        query: Query,
        *,
        limit: int | None = None,
        idle: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._starts = starts
        self._selection = Selection(query)
        self._left = limit
        self._idle = idle
        self._clock = clock
        self._foreign = BadLines()
        self._trouble: str | None = None

    def batches(self, over: Callable[[], bool]) -> Iterator[list[Record]]:
        """
        Give the events that are wanted, as they come.

        Args:
            over: Asked after each batch and each tick; says whether to end.

        Raises:
            CommandError: The stream cannot be read any more.
        """
        with closing(self._stream.read(self._starts)) as reading:
            heard = self._clock()
            for messages in reading:
                self._tell_trouble()
                if records := self._records(messages):
                    yield records
                came = any(message.body is not None for message in messages)
                if came or not self._stream.opened:
                    heard = self._clock()
                if over() or self._is_enough(heard):
                    return

    def _is_enough(self, heard: float) -> bool:
        if self._left == 0:
            return True
        return self._idle is not None and self._clock() - heard >= self._idle

    def _records(self, messages: Iterable[Message]) -> list[Record]:
        found = [
            record
            for message in messages
            if message.body is not None
            for record in self._events(message)
            if self._selection.takes(record)
        ]
        if self._left is not None:
            found = found[: self._left]
            self._left -= len(found)
        return found

    def _events(self, message: Message) -> Iterator[Record]:
        for entry in entries_of(f"{self._stream.name}/{message.partition}", message):
            if isinstance(entry, EventLine) and _is_json(entry.record.data):
                yield entry.record
            elif isinstance(entry, BadLine):
                self._note(entry)
            else:
                self._note(BadLine(entry.place, "no event that can be shown"))

    def _note(self, line: BadLine) -> None:
        self._foreign.add(line)
        if self._foreign.count == 1:
            _tell(f"no event of bizlog's: {line}")

    def _tell_trouble(self) -> None:
        trouble = self._stream.trouble
        if trouble is not None and trouble != self._trouble:
            _tell(f"{self._stream.name}: {trouble}; trying on")
        self._trouble = trouble

    def told(self) -> list[str]:
        """Say what was no event, if anything was."""
        if not self._foreign.count:
            return []
        return [f"bizlog: {counted(self._foreign.count, 'message')} left out", ""]


def _is_json(data: bytes) -> bool:
    # The envelope was read; that the rest is in order shows only now.
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return True


def _tell(note: str) -> None:
    print(f"bizlog: note: {note}", file=sys.stderr, flush=True)


def printer(*, as_json: bool) -> Callable[[list[Record]], None]:
    """
    Make what prints events: as the console sink does.

    Args:
        as_json: Whether to print JSON on a terminal, too.
    """
    sink = make_sink("console:?format=json" if as_json else "console:")

    def show(records: list[Record]) -> None:
        batch = Batch("tail", 1, len(records), records)
        try:
            asyncio.run(sink.deliver(batch))
        except PermanentSinkError as error:
            if isinstance(error.__cause__, BrokenPipeError):
                raise error.__cause__ from None
            raise

    return show
