"""
A journal on disk that no disk can hurt: never raises, falls back to memory, returns.

What came last is held in memory too, so that lanes that keep up read no disk. When the
disk refuses (full, broken, read-only, its folder deleted) records stay in memory, all
of them; once a second the disk is tried again, and when it works what is still needed
is written in order: same journal, same positions, same seals.

Owned by the pump's thread. Where the disk is slow, its calls are slow.
"""

from __future__ import annotations

import math
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from bizlog import diagnostics
from bizlog.delivery.journal import DAMAGED, JournalError, MemoryJournal
from bizlog.delivery.sqlite import UnfitFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bizlog.delivery.journal import LaneState
    from bizlog.delivery.sqlite import SqliteJournal
    from bizlog.sinks import Record

# What is held in memory of what is on disk: some seconds at full speed.
WINDOW_BYTES = 8 << 20
RETRY_SECONDS = 1.0
# How often one looks whether the file is still in its folder.
LOOK_SECONDS = 0.25
# How long a disk may give no answer before what it holds is given up.
PATIENCE_SECONDS = 30.0


class Home(Protocol):
    """Where the file of one journal lives, and whose it is."""

    def make(self, journal_id: str, start: int) -> SqliteJournal:
        """
        Make a new file; what stands in its place is moved away, not deleted.

        Raises:
            JournalError: It cannot be made now.
        """
        ...

    def hold(self) -> None:
        """
        Make sure that the place is still ours.

        Raises:
            JournalError: Another process has it.
        """
        ...

    def leave(self, *, damaged: bool) -> None:
        """Give the place up after the file was closed; put it aside if `damaged`."""
        ...


class DurableJournal:
    """
    A journal on disk, with a window and a refuge in memory.

    Args:
        home: Makes the file.
        disk: The file where it is there already: of a process that died.
        journal_id: Name of a new journal; a new one by default.
        clock: Monotonic seconds.
        window_bytes: How many bytes of records are held in memory as well.

    Attributes:
        durable: Whether all that was appended is on disk.
        fallbacks: How often the disk refused, and memory took its place.
        lost: Records that were on disk and are on none any more.

    """

    def __init__(
        self,
        home: Home,
        *,
        disk: SqliteJournal | None = None,
        journal_id: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        self._home = home
        self._disk = disk
        self._clock = clock
        self._window_bytes = window_bytes
        self._seals = disk.lanes() if disk else {}
        self._notes: dict[str, bytes] = {}
        self._next_try = self._next_look = clock()
        self._silent_since: float | None = None
        self._given_up = False
        # The file is deleted, replaced or corrupt: what it holds must move.
        self._is_gone = False
        self.journal_id = disk.journal_id if disk else journal_id or uuid.uuid4().hex
        self.start = disk.start if disk else 0
        self._window = MemoryJournal(self.journal_id, disk.end if disk else 0)
        self.durable = True
        self.fallbacks = 0
        self.lost = 0

    @property
    def end(self) -> int:
        """Position behind the last record."""
        return self._window.end

    @property
    def journaled(self) -> int:
        """Position up to which all that is needed is on disk."""
        if self._disk is None or self._is_gone:
            return self.start
        return max(self._disk.end, self._window.start)

    @property
    def remembered(self) -> int:
        """Position from which on records are in memory, on disk or not."""
        return self._window.start

    @property
    def memory_events(self) -> int:
        """Records that are in memory only."""
        return self.end - self._written

    @property
    def memory_bytes(self) -> int:
        """Bytes of the records that are in memory only."""
        return self._window.size_from(self._written)

    @property
    def corrupt(self) -> int:
        """Records that the disk gave back damaged."""
        return self._disk.corrupt if self._disk else 0

    @property
    def _written(self) -> int:
        disk_end = self._disk.end if self._disk else 0
        return max(disk_end, self._window.start)

    def append(self, run: Sequence[Record]) -> None:
        """Add records at the end, on disk where that works."""
        self._window.append(run)
        if self.durable or self._clock() >= self._next_try:
            self._guarded(self._catch_up)
        if self._window.size > self._window_bytes:
            # Three quarters, so that this is not done for each run.
            stop = self._window.last(self._window_bytes * 3 // 4)
            self._window.release(min(stop, self._written))

    def maintain(self, now: float) -> None:
        """
        Try a disk that failed, keep one that works tidy; about once a second.

        Args:
            now: Monotonic seconds.
        """
        if not self.durable and now < self._next_try:
            return
        self._guarded(self._catch_up)
        if self.durable and self._disk:
            self._guarded(self._disk.tidy)

    def _guarded(self, work: Callable[[], object]) -> None:
        try:
            work()
        except OSError as error:
            self._fall_back(error)

    def _fall_back(self, error: OSError) -> None:
        self._next_try = self._clock() + RETRY_SECONDS
        self._is_gone = self._is_gone or isinstance(error, UnfitFileError)
        self._distrust()
        diagnostics.report(
            "journal",
            f"the journal cannot be written ({error}); events are kept in memory until "
            "it can: make room, or mend its folder",
        )

    def _distrust(self) -> None:
        self.fallbacks += self.durable
        self.durable = False

    def _catch_up(self) -> None:
        disk = self._usable_disk() or self._renew()
        self._write(disk)
        if not self.durable:
            self._write_seals(disk)
            disk.release(self.start)
            self.durable = True

    def _usable_disk(self) -> SqliteJournal | None:
        disk = self._disk
        if disk is None or self._is_gone:
            return None
        if self._has_moved(disk):
            self._is_gone = True
            self._distrust()
            return None
        if not self.durable and disk.end <= self.start and not disk.corrupt:
            # It holds nothing that is needed: perhaps it is its room that lacks.
            self._disk = None
            disk.remove()
        return self._disk

    def _has_moved(self, disk: SqliteJournal) -> bool:
        now = self._clock()
        if now < self._next_look and self.durable:
            return False
        self._next_look = now + LOOK_SECONDS
        self._home.hold()
        return disk.moved

    def _write(self, disk: SqliteJournal) -> None:
        disk.skip_to(self._window.start)
        for run in self._window.runs(disk.end):
            disk.append(run)

    def _write_seals(self, disk: SqliteJournal) -> None:
        for lane, state in self._seals.items():
            disk.seal(lane, state)
        for key, value in self._notes.items():
            disk.note(key, value)

    def _renew(self) -> SqliteJournal:
        """Move to a new file, with all that is needed of the old one."""
        old = self._disk
        new = self._home.make(self.journal_id, self.start)
        try:
            # First: without them the next process would not know what is settled.
            self._write_seals(new)
            lost = self._copy(old, new) if old else 0
            self._write(new)
        except OSError:
            with suppress(JournalError):
                new.remove()
            raise
        if old:
            old.close()
        self.lost += lost
        self._disk = new
        self._is_gone = False
        return new

    def _copy(self, old: SqliteJournal, new: SqliteJournal) -> int:
        stop = self._window.start
        return new.copy(old, self.start, stop) if self.start < stop else 0

    def read(self, position: int, max_events: int, max_bytes: int) -> list[Record]:
        """
        Read records from a position on, within both limits.

        None at all before the end: the disk gives no answer now.
        """
        if position >= self._window.start:
            return self._window.read(position, max_events, max_bytes)
        assert self._disk
        try:
            found = self._disk.read(position, max_events, max_bytes)
        except OSError as error:
            return self._unread(position, max_events, error)
        self._silent_since = None
        return found

    def _unread(self, position: int, max_events: int, error: OSError) -> list[Record]:
        now = self._clock()
        if self._silent_since is None:
            self._silent_since = now
        diagnostics.report("journal.read", f"the journal cannot be read ({error})")
        if now - self._silent_since < PATIENCE_SECONDS:
            return []
        given_up = min(max_events, self._window.start - position)
        self.lost += given_up
        self._given_up = True
        return [DAMAGED] * given_up

    def position_at(self, wall_time: float) -> int:
        """
        Position of the first record on disk that was appended at a time or later.

        Args:
            wall_time: Seconds since 1970.
        """
        with suppress(OSError):
            return self._disk.position_at(wall_time) if self._disk else self.start
        return self.start

    def release(self, position: int) -> None:
        """Forget what stands before a position."""
        self.start = max(self.start, position)
        self._window.release(position)
        if self._disk and self.durable:
            disk = self._disk
            self._guarded(lambda: disk.release(position))

    def seal(self, lane: str, state: LaneState) -> None:
        """Keep where a lane stands, on disk where that works."""
        self._seals[lane] = state
        if self._disk and self.durable:
            disk = self._disk
            self._guarded(lambda: disk.seal(lane, state))

    def lanes(self) -> dict[str, LaneState]:
        """Say where each lane stood when it was last sealed, by name."""
        return dict(self._seals)

    def note(self, key: str, value: bytes) -> None:
        """Leave JSON for those who look at the file."""
        self._notes[key] = value
        if self._disk and self.durable:
            disk = self._disk
            self._guarded(lambda: disk.note(key, value))

    def close(self, *, remove: bool = False) -> None:
        """
        Close the file, after a last try to write what is not on it.

        Args:
            remove: Delete it, for all lanes are done with it; one that was damaged is
                put aside instead.
        """
        if not remove and not self.durable and self._next_try < math.inf:
            self._guarded(self._catch_up)
        damaged = bool(self.corrupt or self._given_up)
        if self._disk:
            with suppress(JournalError):
                (self._disk.remove if remove and not damaged else self._disk.close)()
        self._home.leave(damaged=remove and damaged)

    def forsake(self) -> None:
        """Leave the file, in a forked child, to its parent: open, and never used."""
        if self._disk:
            self._disk.forsake()
        self._disk = None
        self._next_try = math.inf
        self.durable = False
