"""
The journal: a log of runs of records, in which every sink is a cursor.

`Journal` is what lanes and pump need of it; `MemoryJournal` keeps the runs in a list.
Owned by the pump's thread; no lock, no I/O.
"""

from __future__ import annotations

import uuid
from bisect import bisect_right
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bizlog.sinks import Record


class Journal(Protocol):
    """
    A log of records; the first stands at position 0.

    Attributes:
        journal_id: Names the log; part of every batch's name.
        end: Position behind the last record.
    """

    journal_id: str
    end: int

    def append(self, run: Sequence[Record]) -> None:
        """Add records at the end."""
        ...

    def read(self, position: int, max_events: int, max_bytes: int) -> list[Record]:
        """
        Read records from a position on.

        Args:
            position: Where to start; not before what was released.
            max_events: Most records to return.
            max_bytes: Most bytes to return; the first record comes in any case.
        """
        ...

    def release(self, position: int) -> None:
        """Forget what stands before a position: no cursor needs it any more."""
        ...


class MemoryJournal:
    """A journal that lives and dies with the process."""

    def __init__(self) -> None:
        self.journal_id = uuid.uuid4().hex
        self.end = 0
        self._starts: list[int] = []
        self._runs: list[tuple[Sequence[Record], int]] = []

    def append(self, run: Sequence[Record]) -> None:
        """Add records at the end."""
        if run:
            size = sum([len(record.data) for record in run])
            self._starts.append(self.end)
            self._runs.append((run, size))
            self.end += len(run)

    def read(self, position: int, max_events: int, max_bytes: int) -> list[Record]:
        """Read records from a position on, within both limits."""
        found: list[Record] = []
        size = 0
        index = max(bisect_right(self._starts, position) - 1, 0)
        for start, (run, run_size) in zip(
            self._starts[index:], self._runs[index:], strict=True
        ):
            fits = len(found) + len(run) <= max_events and size + run_size <= max_bytes
            if fits and start >= position:
                found += run
                size += run_size
                continue
            for record in run[max(position - start, 0) :]:
                size += len(record.data)
                if found and (len(found) >= max_events or size > max_bytes):
                    return found
                found.append(record)
        return found

    def release(self, position: int) -> None:
        """Forget whole runs that end at or before a position."""
        whole = bisect_right(self._starts, position) - 1
        if position >= self.end:
            whole = len(self._runs)
        if whole > 0:
            del self._starts[:whole]
            del self._runs[:whole]
