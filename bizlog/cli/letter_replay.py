"""
`bizlog dead-letters replay`: send the events of dead letters again.

Letters are worked off in portions: send, have the sink make it durable, then decide for
each letter. One whose event was delivered is left out of the new file; one that was
refused again stays, with the new reason; whatever is not known to be delivered stays as
it was. Nothing is removed before the sink has it.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

import msgspec

from bizlog.cli.conveyor import Conveyor, stalled
from bizlog.cli.entries import BadLine, BadLines
from bizlog.cli.interrupt import Interruption
from bizlog.cli.letter_files import Rewriting, read_letters
from bizlog.cli.letter_filter import LetterFilter
from bizlog.cli.progress import Progress
from bizlog.cli.resume import fingerprint
from bizlog.cli.tables import counted
from bizlog.delivery.dead_letters import DeadLetter, DeadLetterFolder

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from bizlog.cli.entries import Entry, LetterLine
    from bizlog.cli.letter_files import LetterFolder
    from bizlog.sinks import Record

PORTION_EVENTS = 5_000
PORTION_BYTES = 16 * 1024 * 1024
INTERRUPTED = 130


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options beside the folder and the filters."""
    parser.add_argument(
        "--sink", required=True, metavar="URL", help="where to, such as file:./again"
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the letters of what was delivered"
    )


def run(folder: LetterFolder, arguments: argparse.Namespace) -> int:
    """Send the letters' events, print the ledger, and give the exit code."""
    with folder.held():
        return _LetterReplay(folder, arguments).run()


class _Refusals(DeadLetterFolder):
    """
    Takes what the lane gives up, and writes nothing: the letters are still there.

    Attributes:
        letters: What was refused in this portion, by event id.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "")
        self.letters: dict[str | None, DeadLetter] = {}

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Remember them."""
        for letter in letters:
            self.letters[letter.event_id] = letter


class _LetterReplay:
    """One run over all files of a folder."""

    def __init__(self, folder: LetterFolder, arguments: argparse.Namespace) -> None:
        self._files = folder.files()
        self._filter = LetterFilter(arguments)
        self._keep_all: bool = arguments.keep
        self._interruption = Interruption()
        self._refusals = _Refusals(folder.path)
        self._conveyor = Conveyor(
            arguments.sink,
            journal_id=self._journal_id(arguments.sink),
            dead_letters=self._refusals,
            interruption=self._interruption,
        )
        self._new: Rewriting | None = None
        self._portion: list[tuple[bytes, LetterLine | None]] = []
        self._sent = 0
        self._done_bytes = 0
        self._whole_bytes = sum(path.stat().st_size for path in self._files)
        self._refused = 0
        self._unsure = 0
        self._never_accepted = 0
        self._bad_lines = BadLines()

    def _journal_id(self, sink: str) -> str:
        found = [(path, path.stat()) for path in self._files]
        files = [(s.st_ino, s.st_size, s.st_mtime_ns) for _, s in found]
        return fingerprint(sink, self._filter.words, files)

    def run(self) -> int:
        with self._interruption.caught(), Progress("dead letters") as progress:
            asyncio.run(self._send(progress))
        print(self._conveyor.ledger)
        complaints = self._complaints()
        if complaints:
            print(*complaints, sep="\n", file=sys.stderr)
        if self._interruption.asked:
            return INTERRUPTED
        return 1 if complaints else 0

    async def _send(self, progress: Progress) -> None:
        async with self._conveyor:
            for path in self._files:
                if self._conveyor.over:
                    return
                if not self._concerns(path):
                    continue
                with nullcontext() if self._keep_all else Rewriting(path) as new:
                    self._new = new
                    await self._send_file(new.path if new else path, progress)

    def _concerns(self, path: Path) -> bool:
        """Whether there is anything to send in a file; the others are left alone."""
        found = False
        for _, entry in read_letters(path):
            if isinstance(entry, BadLine):
                self._bad_lines.add(entry)
            elif self._filter.takes(entry):
                found = found or entry.can_be_replayed
                self._never_accepted += not entry.can_be_replayed
        return found

    async def _send_file(self, path: Path, progress: Progress) -> None:
        size = 0
        for line, entry in read_letters(path):
            self._portion.append((line, self._chosen(entry)))
            size += len(line)
            if len(self._portion) >= PORTION_EVENTS or size >= PORTION_BYTES:
                await self._settle_portion(progress)
                size = 0
        await self._settle_portion(progress)

    def _chosen(self, entry: Entry) -> LetterLine | None:
        if self._conveyor.over or not self._filter.takes(entry):
            return None
        return entry if entry.can_be_replayed else None

    async def _settle_portion(self, progress: Progress) -> None:
        portion, self._portion = self._portion, []
        self._refusals.letters.clear()
        known = await self._deliver(
            [e.event.record for _, e in portion if e and e.event]
        )
        for line, entry in portion:
            kept = line if entry is None else self._outcome(line, entry, known=known)
            if kept and self._new is not None:
                self._new.keep(kept)
        self._done_bytes += sum(len(line) + 1 for line, _ in portion)
        progress.update(self._sent, self._fraction)

    def _fraction(self) -> float:
        return min(1.0, self._done_bytes / max(self._whole_bytes, 1))

    async def _deliver(self, records: list[Record]) -> bool:
        """Send records; say whether the outcome of each is known, and durable."""
        dropped = self._dropped
        await self._conveyor.feed(records)
        self._sent += len(records)
        return await self._conveyor.finish() and self._dropped == dropped

    @property
    def _dropped(self) -> int:
        [sink] = self._conveyor.ledger.sinks.values()
        return sum(sink.dropped.values())

    def _outcome(self, line: bytes, entry: LetterLine, *, known: bool) -> bytes:
        """Say what stays of a letter: nothing, all of it, or it with a new reason."""
        refused = self._refusals.letters.get(entry.letter.event_id)
        if refused is not None:
            self._refused += 1
            return _renewed(entry.letter, refused)
        if not known:
            self._unsure += 1
            return line
        return b""

    def _complaints(self) -> list[str]:
        found = self._bad_lines.told()
        if self._conveyor.stalled:
            found.append(stalled())
        if self._refused:
            refused = counted(self._refused, "event")
            found.append(f"{refused} refused again; bizlog dead-letters show  says why")
        if self._unsure:
            unsure = counted(self._unsure, "event")
            found.append(
                f"{unsure} may or may not have been delivered; the letters stay, and "
                "the same command sends them again"
            )
        if self._never_accepted:
            left = counted(self._never_accepted, "letter")
            found.append(
                f"{left} left alone: the events were never accepted, since they break "
                "their schema, and cannot be replayed as they are; mend what emits "
                "them, then  bizlog dead-letters drop --from-sink none"
            )
        return found


def _renewed(letter: DeadLetter, refused: DeadLetter) -> bytes:
    return msgspec.json.encode(
        msgspec.structs.replace(
            letter,
            reason=refused.reason,
            path=refused.path,
            sink=refused.sink,
            attempts=letter.attempts + refused.attempts,
            last_at=refused.last_at,
        )
    )
