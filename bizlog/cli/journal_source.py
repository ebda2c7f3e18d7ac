"""
The events that stand in a journal's file, read beside whoever owns it.

Read only, one run of events in each transaction, so that its owner is not held up: a
long one would keep its log from being written back. What its owner deletes meanwhile,
because every sink has it, is passed over.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, TypeAlias

from bizlog.cli.entries import BadLine, Place, read_entry
from bizlog.cli.errors import CommandError
from bizlog.delivery.journal import JournalError
from bizlog.delivery.rows import unpack
from bizlog.delivery.sqlite import check_format

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from bizlog.cli.entries import Entry

BUSY_SECONDS = 5.0

_Row: TypeAlias = "tuple[int, int, bytes, bytes]"

_NEXT_RUN = (
    "select first, last, checks, data from runs where first = coalesce("
    "(select max(first) from runs where first <= :at and last >= :at), "
    "(select min(first) from runs where first > :at))"
)


class JournalSource:
    """
    One journal's file, as a source of events.

    Args:
        path: The file.

    Attributes:
        path: As given.
        size: Its bytes and those of its log, when it was found.
        modified: When either was changed last, in nanoseconds.
        damage: None; damaged events are told one by one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: str | None = None
        self._done = 0.0
        found = [path.stat()]
        with suppress(FileNotFoundError):
            found.append(path.with_name(f"{path.name}-wal").stat())
        self.size = sum(each.st_size for each in found)
        self.modified = max(each.st_mtime_ns for each in found)

    @property
    def read_bytes(self) -> int:
        """How much of it was read, in bytes."""
        return int(self.size * self._done)

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """
        Read the events behind a position.

        Args:
            after: The position plus 1; 0 begins with the first.

        Raises:
            CommandError: The file is no journal that this version understands, or the
                disk gives no answer.
        """
        with self._opened() as connection:
            check_format(connection)
            # What is journaled from now on is for the next time.
            [(last,)] = connection.execute("select max(last) from runs")
            end = 0 if last is None else last + 1
            position = after
            while (row := self._run(connection, position)) and row[0] < end:
                for at, entry in _entries_of(self.path, row):
                    if at >= position:
                        yield entry
                position = row[1] + 1
                self._done = (position - after) / (end - after)
        self._done = 1.0

    def _run(self, connection: sqlite3.Connection, position: int) -> _Row | None:
        found: _Row | None = connection.execute(_NEXT_RUN, {"at": position}).fetchone()
        return found

    @contextmanager
    def _opened(self) -> Generator[sqlite3.Connection]:
        # A file that was closed well has no log, and a reader would make one.
        has_log = self.path.with_name(f"{self.path.name}-wal").exists()
        mode = "mode=ro" if has_log else "mode=ro&immutable=1"
        try:
            with closing(
                sqlite3.connect(
                    f"{self.path.absolute().as_uri()}?{mode}",
                    uri=True,
                    isolation_level=None,
                    timeout=BUSY_SECONDS,
                )
            ) as connection:
                yield connection
        except (sqlite3.Error, JournalError) as error:
            raise CommandError(
                f"{self.path}: cannot be read as a journal: {error}"
            ) from None


def _entries_of(path: Path, row: _Row) -> Iterator[tuple[int, Entry]]:
    first, last, checks, data = row
    for at, record in enumerate(unpack(last - first + 1, checks, data), first):
        place = Place(path, at + 1)
        if record.data:
            yield at, read_entry(record.data, place)
        else:
            yield at, BadLine(place, "the event is damaged on the disk")
