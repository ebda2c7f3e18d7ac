"""
`bizlog replay`: send events that stand in files, hubs or topics once more, to any sink.

Ids and bytes stay as they are, so a sink that knows an event recognises it. What the
sink refuses goes to the dead letters, as in a service; the closing ledger accounts for
every event that was read.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from bizlog.cli import resume
from bizlog.cli.conveyor import Conveyor, stalled
from bizlog.cli.errors import CommandError
from bizlog.cli.interrupt import Interruption
from bizlog.cli.places import DEAD_LETTERS, configured_folder
from bizlog.cli.progress import Progress
from bizlog.cli.reader import Reader
from bizlog.cli.selection import add_query, query_of
from bizlog.cli.sources import Sources
from bizlog.cli.streams import add_group, is_stream
from bizlog.cli.tables import counted
from bizlog.delivery.dead_letters import DeadLetterFolder
from bizlog.stamps import next_id

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from bizlog.cli.entries import Place
    from bizlog.cli.selection import Query
    from bizlog.sinks import Record

    _Run: TypeAlias = list[tuple[Record, Place]]

# Records that are handed over at once; where a replay can go on again.
RUN_EVENTS = 500
SAVE_SECONDS = 1.0
LOOK_SECONDS = 0.1
INTERRUPTED = 130

DESCRIPTION = """\
Send events once more, from files that a file sink wrote, from dead letters or from
journals, to any sink. A SOURCE is a file or a folder; what it holds is recognised by
its content: JSON Lines, plain or compressed with gzip or zstd. Or it is the URL of an
event hub or a Kafka topic: its partitions are read one after the other, each up to the
end that it had when the command began.

Events keep their ids and their bytes. They are sent as they stand in the sources: an
event that stands there twice is sent twice, unless --unique is given. What the sink
refuses goes to the dead letters. A ledger at the end accounts for every event.

Ctrl-C ends the replay between two batches. The same command then goes on where it was:
its state is kept in a file, which is removed when the replay is complete.
"""
EPILOG = """\
conditions (--where) compare fields with ==, !=, <, <=, >, >=, in, not in, joined by
and, or, not and parentheses. Fields inside others: custom_properties.voucher,
order_items[0].price. A field that is absent is null.

examples:
  bizlog replay ./bizlog-events --sink https://collector.example/events/batch
  bizlog replay ./bizlog-events --from 3d --type 'order.*' --sink file:./orders
  bizlog replay ./bizlog-events --where 'order_total >= 100' --dry-run
  bizlog replay eventhub://NAME.servicebus.windows.net/events --from 2h --sink file:./a
  bizlog replay old.jsonl.gz --rate 200/s --sink http://127.0.0.1:8080/events/batch

exit codes: 0 every event was delivered; 1 not all of them, or lines could not be read
(the output says which); 2 could not start; 130 ended by Ctrl-C
"""


def add_to(commands: Any) -> None:
    """Add the command to the parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "replay",
        help="send events from files, journals or dead letters once more",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="file, folder, or URL of a hub"
    )
    parser.add_argument("--sink", metavar="URL", help="where to, such as file:./again")
    add_query(parser)
    parser.add_argument(
        "--rate", type=parse_rate, metavar="N/s", help="at most N events a second"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="count what would be sent, send nothing"
    )
    parser.add_argument(
        "--dead-letters",
        type=Path,
        metavar="DIR",
        help="folder for what the sink refuses (default: the setting dead_letters)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help="where the position is kept (default .bizlog-replay-….json, here)",
    )
    parser.add_argument(
        "--from-start",
        action="store_true",
        help="do not go on where an interrupted replay was",
    )
    add_group(parser)
    parser.set_defaults(run=run)


def parse_rate(text: str) -> float:
    """Read events a second, as `200`, `200/s` or `0.5/s`."""
    try:
        rate = float(text.strip().removesuffix("/s"))
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise argparse.ArgumentTypeError(
            f"expected events a second such as 200/s, got {text!r}"
        )
    return rate


def run(arguments: argparse.Namespace) -> int:
    """Replay, print the ledger and say by the exit code whether all is well."""
    query = query_of(arguments)
    with Sources(arguments.sources, arguments.group) as sources:
        for note in sources.notes():
            print(f"bizlog: note: {note}", file=sys.stderr)
        if arguments.dry_run:
            return _dry_run(Reader(sources, query))
        if arguments.sink is None:
            raise CommandError("--sink is missing: name one, such as file:./again")
        return _Replay(arguments, sources, query).run()


def _dry_run(reader: Reader) -> int:
    counts: Counter[str] = Counter()
    size = 0
    times: set[str] = set()
    with Progress("reading") as progress:
        for record, _ in reader:
            counts[record.event_type] += 1
            size += len(record.data)
            times = {min({record.event_time, *times}), max({record.event_time, *times})}
            progress.update(counts.total(), lambda: reader.sources.fraction)
    print(f"would send {counts.total():,} events, {size:,} bytes")
    if times:
        print(f"  event_time from {min(times)} to {max(times)}")
    for name, events in counts.most_common():
        print(f"  {name}  {events:,}")
    return _close(reader.notes(), reader.complaints())


def _close(notes: list[str], complaints: list[str]) -> int:
    for note in notes:
        print(note)
    if complaints:
        print(*complaints, sep="\n", file=sys.stderr)
    return 1 if complaints else 0


def _absolute(source: str) -> str:
    return source if is_stream(source) else str(Path(source).resolve())


class _Replay:
    """One run of the command, or what is left of it."""

    def __init__(
        self, arguments: argparse.Namespace, sources: Sources, query: Query
    ) -> None:
        places = [_absolute(source) for source in arguments.sources]
        asked = [arguments.start, arguments.end, query.types, query.where, query.unique]
        self._command = resume.fingerprint(sorted(places), asked, arguments.sink)
        self._path: Path = arguments.state or Path(
            f".bizlog-replay-{self._command[:12]}.json"
        )
        state = self._earlier(arguments.from_start, query)
        self._query = state.query
        self._lines = dict(state.lines)
        self._events_before = state.events
        self._reader = Reader(sources, state.query, state.lines)
        self._rate: float | None = arguments.rate
        self._interruption = Interruption()
        self._letters = DeadLetterFolder(
            arguments.dead_letters or configured_folder(DEAD_LETTERS), next_id()
        )
        self._conveyor = Conveyor(
            arguments.sink,
            journal_id=self._journal_id(),
            dead_letters=self._letters,
            interruption=self._interruption,
            batch_size=max(1, int(self._rate)) if self._rate else None,
        )
        self._marks: deque[tuple[int, Place]] = deque()
        self._fed = 0
        self._save_at = time.monotonic() + SAVE_SECONDS

    def _earlier(self, from_start: bool, query: Query) -> resume.State:  # noqa: FBT001  # the option
        state = None if from_start else resume.load(self._path, self._command)
        if state is None:
            return resume.State(self._command, query, {})
        print(
            f"bizlog: going on after {state.events:,} events that are settled "
            f"({self._path}; --from-start begins anew)",
            file=sys.stderr,
        )
        return state

    def _journal_id(self) -> str:
        """
        Name the batches: alike for the same events in the same order, else differently.

        Hence it holds which files were found and how far each had been settled.
        """
        files = [
            (str(file.path), file.size, file.modified)
            for file in self._reader.sources.files
        ]
        return resume.fingerprint(self._command, self._query, files, self._lines)

    def run(self) -> int:
        done = False
        try:
            with self._interruption.caught(), Progress("replay") as progress:
                done = asyncio.run(self._send(progress))
                seconds = progress.seconds
        finally:
            self._mark_settled()
            if done:
                self._path.unlink(missing_ok=True)
            else:
                self._save()
        return self._report(seconds, done=done)

    async def _send(self, progress: Progress) -> bool:
        started = time.monotonic()
        async with self._conveyor as conveyor, aclosing(self._read()) as runs:
            async for run in runs:
                await conveyor.feed([record for record, _ in run])
                self._note(run)
                progress.update(self._fed, lambda: self._reader.sources.fraction)
                if self._rate:
                    due = started + self._fed / self._rate
                    await conveyor.pause(due - time.monotonic())
                if conveyor.over:
                    break
            return await conveyor.finish() and not conveyor.over

    async def _read(self) -> AsyncGenerator[_Run]:
        """Read on a thread: what a network keeps waiting must not hold up the sink."""
        loop = asyncio.get_running_loop()
        runs = self._runs()
        # One and the same thread for all, since a journal's connection is bound to it.
        with ThreadPoolExecutor(1) as thread:
            try:
                while run := await self._awaited(
                    loop.run_in_executor(thread, next, runs, None)
                ):
                    yield run
            finally:
                self._reader.sources.stop()
                await loop.run_in_executor(thread, runs.close)

    async def _awaited(self, reading: asyncio.Future[_Run | None]) -> _Run | None:
        while not reading.done():
            await asyncio.wait((reading,), timeout=LOOK_SECONDS)
            if self._conveyor.over:
                self._reader.sources.stop()
        return reading.result()

    def _runs(self) -> Generator[_Run]:
        size = min(RUN_EVENTS, max(1, int(self._rate))) if self._rate else RUN_EVENTS
        run: _Run = []
        for found in self._reader:
            run.append(found)
            if len(run) >= size:
                yield run
                run = []
        if run:
            yield run

    def _note(self, run: list[tuple[Record, Place]]) -> None:
        self._fed += len(run)
        position = self._fed - len(run)
        for index, (_, place) in enumerate(run, 1):
            last = index == len(run) or run[index][1].path != place.path
            if last:
                self._marks.append((position + index, place))
        if time.monotonic() >= self._save_at:
            self._save_at = time.monotonic() + SAVE_SECONDS
            self._mark_settled()
            self._save()

    def _mark_settled(self) -> None:
        settled = self._conveyor.settled
        while self._marks and self._marks[0][0] <= settled:
            _, place = self._marks.popleft()
            self._lines[str(place.path)] = place.line

    def _save(self) -> None:
        state = resume.State(
            self._command,
            self._query,
            self._lines,
            self._events_before + self._conveyor.settled,
        )
        resume.save(self._path, state)

    def _report(self, seconds: float, *, done: bool) -> int:
        ledger = self._conveyor.ledger
        print(ledger)
        rate = self._fed / max(seconds, 1e-9)
        print(f"{self._fed:,} events in {seconds:,.1f} s: {rate:,.0f}/s")
        code = _close(self._reader.notes(), self._complaints(done=done))
        return INTERRUPTED if self._interruption.asked else code

    def _complaints(self, *, done: bool) -> list[str]:
        found = self._reader.complaints()
        [sink] = self._conveyor.ledger.sinks.values()
        if sink.dead_lettered:
            found.append(
                f"{counted(sink.dead_lettered, 'event')} refused: they are in "
                f"{self._letters.path}"
            )
        if sink.dropped:
            lost = counted(sum(sink.dropped.values()), "event")
            found.append(
                f"{lost} refused that is in no dead letter: {self._letters.path.parent}"
                " cannot be written; mend that, then replay again"
            )
        if self._conveyor.stalled:
            found.append(stalled())
        if not done:
            found.append(
                "not complete: the same command goes on where this one stopped "
                f"({self._path})"
            )
        return found
