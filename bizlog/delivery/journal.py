"""
The journal: a log of runs of records, in which every sink is a cursor.

`Journal` is what lanes and pump need of it; `MemoryJournal` keeps the runs in a list,
`bizlog.delivery.sqlite` keeps them on disk. Here is no I/O and no lock; a journal is
owned by the pump's thread.

Every position holds one record for ever. Where a disk gave back something else than it
was given, `DAMAGED` stands at the position: positions, seals and the names of batches
stay what they were, and the lane counts it and leaves it out of its batch.
"""

from __future__ import annotations

import uuid
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

import msgspec

from bizlog.sinks import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DAMAGED = Record(b"", "", "", "", 0)
"""Stands for a record that cannot be read back; the only one without data."""


class JournalError(OSError):
    """A journal's disk refused something; stays inside `bizlog.delivery`."""


class LaneState(msgspec.Struct, frozen=True):
    """
    Where a sink stands in a journal.

    Attributes:
        settled: Position up to which every record is settled.
        seals: Last positions, inclusive and ascending, of the batches that are sealed
            and not settled; the first one starts at `settled`.
    """

    settled: int
    seals: tuple[int, ...] = ()


class Journal(Protocol):
    """
    A log of records; the first stands at position 0.

    Attributes:
        journal_id: Names the log; part of every batch's name.
    """

    journal_id: str

    @property
    def start(self) -> int:
        """Position of the first record that is still there."""
        ...

    @property
    def end(self) -> int:
        """Position behind the last record."""
        ...

    @property
    def journaled(self) -> int:
        """Position up to which the records outlive the process."""
        ...

    @property
    def durable(self) -> bool:
        """Whether what is appended now outlives the process."""
        ...

    def append(self, run: Sequence[Record]) -> None:
        """Add records at the end."""
        ...

    def read(self, position: int, max_events: int, max_bytes: int) -> list[Record]:
        """
        Read consecutive records from a position on; `DAMAGED` for one that is lost.

        None at all before the end means that a disk gives no answer now: ask again in
        a second.

        Args:
            position: Where to start; not before what was released.
            max_events: Most records to return.
            max_bytes: Most bytes to return; the first record comes in any case.
        """
        ...

    def release(self, position: int) -> None:
        """Forget what stands before a position: no cursor needs it any more."""
        ...

    def seal(self, lane: str, state: LaneState) -> None:
        """Keep where a lane stands; before the first attempt of each batch."""
        ...

    def lanes(self) -> dict[str, LaneState]:
        """Say where each lane stood when it was last sealed, by name."""
        ...

    def close(self) -> None:
        """Let go of what the journal holds; it is not used again."""
        ...


class MemoryJournal:
    """
    A journal that lives and dies with the process.

    Args:
        journal_id: Its name; a new one by default.
        start: Position of the first record to come.

    Attributes:
        size: Bytes of the records that it holds.
    """

    journaled = 0
    durable = False

    def __init__(self, journal_id: str | None = None, start: int = 0) -> None:
        self.journal_id = journal_id or uuid.uuid4().hex
        self.start = self.end = start
        self.size = 0
        self._starts: list[int] = []
        self._runs: list[tuple[Sequence[Record], int]] = []
        self._lanes: dict[str, LaneState] = {}

    def append(self, run: Sequence[Record]) -> None:
        """Add records at the end."""
        if run:
            size = sum([len(record.data) for record in run])
            self._starts.append(self.end)
            self._runs.append((run, size))
            self.end += len(run)
            self.size += size

    def read(self, position: int, max_events: int, max_bytes: int) -> list[Record]:
        """Read records from a position on, within both limits."""
        found: list[Record] = []
        size = 0
        for index in range(self._index(position), len(self._runs)):
            run, run_size = self._runs[index]
            skipped = max(position - self._starts[index], 0)
            wanted = run[skipped : skipped + max_events - len(found)]
            if len(wanted) < len(run):
                run_size = sum([len(record.data) for record in wanted])
            if size + run_size > max_bytes:
                return found + _fitting(wanted, max_bytes - size, at_least=not found)
            found += wanted
            size += run_size
            if len(found) >= max_events:
                break
        return found

    def runs(self, position: int) -> Iterator[Sequence[Record]]:
        """Give the runs as they came, from a position on; the first may be cut."""
        for index in range(self._index(position), len(self._runs)):
            run, _ = self._runs[index]
            if wanted := run[max(position - self._starts[index], 0) :]:
                yield wanted

    def size_from(self, position: int) -> int:
        """Say how many bytes the runs from a position on have."""
        if position >= self.end:
            return 0
        return sum([size for _, size in self._runs[self._index(position) :]])

    def last(self, size: int) -> int:
        """Say where the last runs begin that have about so many bytes together."""
        index = len(self._runs)
        while index > 0 and (size := size - self._runs[index - 1][1]) >= 0:
            index -= 1
        return self._starts[index] if index < len(self._starts) else self.end

    def _index(self, position: int) -> int:
        return max(bisect_right(self._starts, position) - 1, 0)

    def release(self, position: int) -> None:
        """Forget whole runs that end at or before a position."""
        whole = bisect_right(self._starts, position) - 1
        if position >= self.end:
            whole = len(self._runs)
        if whole > 0:
            self.size -= sum([size for _, size in self._runs[:whole]])
            del self._starts[:whole]
            del self._runs[:whole]
            self.start = self._starts[0] if self._starts else self.end

    def seal(self, lane: str, state: LaneState) -> None:
        """Keep where a lane stands."""
        self._lanes[lane] = state

    def lanes(self) -> dict[str, LaneState]:
        """Say where each lane stood when it was last sealed, by name."""
        return dict(self._lanes)

    def close(self) -> None:
        """Do nothing: memory needs no farewell."""


def _fitting(run: Sequence[Record], size: int, *, at_least: int) -> list[Record]:
    """Give the first records that fit into a size, but so many in any case."""
    sizes = accumulate([len(record.data) for record in run])
    count = bisect_right([*sizes], size)
    return list(run[: max(count, at_least)])
